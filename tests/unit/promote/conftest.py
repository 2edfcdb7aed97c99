"""Approved models, ready to be promoted: real bundles, registered in a real MLflow store, with a real ledger."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from components.core.bundle import (
    ONNX,
    Column,
    Encoding,
    ModelCard,
    model_digest,
    read_card,
    write_card,
    write_encoding,
)
from components.core.digests import file_digest
from components.core.ledger.bentos import record_bento
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run
from components.core.settings import Settings
from components.core.tracking import register_version, start_run, upload_bundle
from components.core.verdict import Reason, Verdict, write_verdict

CASE = "flights"
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)


class Approved(BaseModel):
    """The inputs of one promote step."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    version: int
    model: Path
    bento: Path
    verdict: Path

    @property
    def arguments(self) -> dict[str, Any]:
        return {"bento": self.bento, "model": self.model, "verdict": self.verdict}

    def write_verdict(self, champion: Any = None, **changes: Any) -> None:
        """Let the gate decide again; `champion` is the version it compared with, "absent" leaves it out."""
        evidence = {} if champion == "absent" else {"champion_version": champion}
        found = {
            "gate": "evaluate",
            "subject": read_card(self.model).model,
            "decision": "promote",
            "reasons": [Reason(check="lift", passed=True, message="better than the baseline")],
            "evidence": evidence,
        }
        write_verdict(self.verdict, Verdict.model_validate(found | changes))


def write_graph(path: Path, offset: float) -> None:
    """Write a graph that sums its inputs, plus an offset that tells one model from another."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSum", ["inputs", "axes"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "offset"], ["prediction"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("offset", TensorProto.FLOAT, [1], [offset]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1]) for n in ("inputs", "prediction")]
    graph = helper.make_graph(nodes, "sum", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def train(settings: Settings, version: int) -> None:
    """Register a version and write its bundle and archive below the home."""
    run = start_run(settings, CASE, f"run-{version}")
    folder = settings.home / "outputs" / str(version)
    model = folder / "model"
    model.mkdir(parents=True)
    write_graph(model / ONNX, offset=float(version))
    write_encoding(model, Encoding(columns=[Column(name="distance", kind="number")]))
    card = ModelCard(
        use_case=CASE,
        task="classification",
        version=register_version(settings, CASE, run),
        mlflow_run=run,
        model=model_digest(model),
        training_set="7" * 64,
        snapshot="5" * 64,
        registry="3" * 64,
        service="flights_v1",
        code="c0de",
        as_of=AS_OF,
        trainer={"kind": "xgboost"},
        device="cpu",
        seed=7,
        first=AS_OF,
        last=AS_OF,
        holdout_from=AS_OF,
        rows=1000,
        validation={"auc": 0.7},
        seconds=1.0,
    )
    assert card.version == version
    write_card(model, card)
    upload_bundle(settings, run, model)
    (folder / "bento.tar").write_bytes(f"the archive of version {version}".encode())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with four registered versions; tests work on copies of it."""
    home = tmp_path_factory.mktemp("trained")
    settings = Settings(
        home=home,
        feature_repo=home,
        ledger_url="",
        mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        feature_registry_url="",
        online_store_url="",
    )
    for version in (1, 2, 3, 4):
        train(settings, version)
    return home


@pytest.fixture(scope="session")
def approve() -> Callable[..., Approved]:
    """Return a function that brings a version to the step `promote`: (settings, version, champion compared with)."""
    return approve_version


def approve_version(settings: Settings, version: int, champion: int | None, run_key: str = "") -> Approved:
    """Claim the run of a version, keep and record its archive, and let the gate approve it."""
    ledger = open_ledger(settings.ledger_url)
    run_key = run_key or f"run-{version}"
    assert claim_run(ledger, run_key, run_key, "training", CASE)
    folder = settings.home / "outputs" / str(version)
    bento = folder / "bento.tar"
    kept = settings.bentos / f"{file_digest(bento)}.tar"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bento, kept)
    record_bento(ledger, read_card(folder / "model").release, file_digest(bento), str(kept))
    approved = Approved(
        settings=settings.model_copy(update={"run_key": run_key}),
        version=version,
        model=folder / "model",
        bento=bento,
        verdict=folder / "verdict.json",
    )
    approved.write_verdict(champion)
    return approved


@pytest.fixture
def home(trained: Path, settings: Settings, ledger_url: str) -> Settings:
    """Return settings over a copy of the trained home, with an empty ledger of either backend."""
    shutil.copytree(trained, settings.home)
    migrate(ledger_url)
    return settings.model_copy(update={"ledger_url": ledger_url})


@pytest.fixture
def embedded(trained: Path, settings: Settings) -> Settings:
    """Return settings over a copy of the trained home, with an empty SQLite ledger: for what ends before the ledger."""
    shutil.copytree(trained, settings.home)
    migrate(settings.ledger_url)
    return settings
