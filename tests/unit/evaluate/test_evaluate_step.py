"""The KFP component, run as a task runs it, with a real ledger and a real model registry."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from kfp import dsl

from components.core.bundle import read_card
from components.core.digests import file_digest
from components.core.errors import DataError, Untrusted
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run
from components.core.sections import Evaluate
from components.core.serving import MODEL_FOLDER, ServingSpec, write_spec
from components.core.settings import Settings
from components.core.tracking import register_version, start_run, upload_bundle
from components.core.verdict import read_verdict
from components.evaluate.champion import fetch_champion
from components.evaluate.component import evaluate
from components.package.signing import sign_archive

CONFIG = Evaluate(margin=0.01, slices=["origin"], min_slice_rows=200, bootstrap_samples=100)


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Point a task's environment to the test's own stores, with a migrated ledger."""
    monkeypatch.setenv("DRIFTLINE_HOME", str(settings.home))
    for name in ("DRIFTLINE_LEDGER_URL", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    migrate(settings.ledger_url)
    return settings


@pytest.fixture
def registered(
    environment: Settings, case: SimpleNamespace, training_set: Callable[..., Path], rows: pa.Table, tmp_path: Path
) -> Callable[..., Path]:
    """Train in name: register a version in MLflow and write and upload its bundle."""

    def register(run_key: str, weights: dict[str, float], bias: float) -> Path:
        run = start_run(environment, "flights", run_key)
        version = register_version(environment, "flights", run)
        case.write_bundle(tmp_path / run_key, weights, bias, version=version, mlflow_run=run)
        upload_bundle(environment, run, tmp_path / run_key)
        return tmp_path / run_key

    return register


def run_component(bundle: Path, training_set: Path, case: SimpleNamespace, out: Path) -> dict[str, Any]:
    """Call the component as the executor does: artifacts by path, numbers as KFP sends them."""
    out.mkdir()
    artifacts: dict[str, Any] = {
        "verdict": dsl.Artifact(uri=str(out / "verdict")),
        "report": dsl.HTML(uri=str(out / "report")),
        "card": dsl.Markdown(uri=str(out / "card")),
        "metrics": dsl.Metrics(uri=str(out / "metrics")),
        "roc": dsl.ClassificationMetrics(uri=str(out / "roc")),
    }
    config = CONFIG.model_dump(mode="json", exclude_none=True)
    evaluate.python_func(
        use_case="flights",
        problem=case.TASKS["classification"].model_dump(mode="json", exclude_none=True),
        config={k: float(v) if isinstance(v, int) else v for k, v in config.items()},
        model=dsl.Model(uri=str(bundle)),
        training_set=dsl.Dataset(uri=str(training_set)),
        **artifacts,
    )
    return artifacts


def crown(settings: Settings, bundle_card: Any, run_id: str) -> None:
    """Promote a version in the ledger as the promote step does."""
    engine = open_ledger(settings.ledger_url)
    claim_run(engine, run_id, run_id, "training", "flights")
    candidate = Candidate(
        model="flights",
        version=bundle_card.version,
        digest=bundle_card.model,
        bento_digest="b" * 64,
        bento_uri="file:///bento",
        run_id=run_id,
        verdict_digest="v" * 64,
        as_of=bundle_card.as_of,
    )
    assert promote(engine, candidate, None) == "promoted"


def test_the_component_judges_the_first_model_and_then_against_the_champion(
    environment: Settings,
    registered: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    case: SimpleNamespace,
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    data = training_set(rows)
    weak = registered("run-1", {**case.GOOD, "noise": 0.5}, -2.6)
    first = run_component(weak, data, case, tmp_path / "out-1")
    verdict = read_verdict(Path(first["verdict"].path))
    assert (verdict.decision, verdict.evidence["version"]) == ("promote", 1)
    assert verdict.evidence["champion_version"] is None
    crown(environment, read_card(weak), "run-1")

    good = registered("run-2", case.GOOD, case.GOOD_BIAS)
    second = run_component(good, data, case, tmp_path / "out-2")
    verdict = read_verdict(Path(second["verdict"].path))
    card = read_card(good)
    assert (verdict.decision, verdict.gate, verdict.subject) == ("promote", "evaluate", card.model)
    assert verdict.evidence["champion_version"] == 1
    assert verdict.evidence["champion_model"] == read_card(weak).model
    gain = verdict.evidence["measurements"]["gain"]
    assert 0 < gain["low"] < gain["estimate"] < gain["high"]

    assert second["metrics"].metadata["champion_auc"] == pytest.approx(first["metrics"].metadata["auc"])
    assert second["metrics"].metadata["gain"] == pytest.approx(gain["estimate"])
    assert len(second["roc"].metadata["confidenceMetrics"]) > 50
    assert sum(sum(r["row"]) for r in second["roc"].metadata["confusionMatrix"]["rows"]) == 1680
    logged = MlflowClient(environment.mlflow_uri).get_run(card.mlflow_run).data.metrics
    assert logged["holdout_auc"] == pytest.approx(second["metrics"].metadata["auc"])
    assert Path(second["report"].path).read_text().startswith("<!doctype html>")
    assert Path(second["card"].path).read_text().startswith("# flights, version 2")


def test_a_registry_that_holds_another_model_than_was_promoted_is_an_error(
    environment: Settings, registered: Callable[..., Path], case: SimpleNamespace, tmp_path: Path
) -> None:
    card = read_card(registered("run-1", case.GOOD, case.GOOD_BIAS))
    crown(environment, card.model_copy(update={"model": "0" * 64}), "run-1")
    with pytest.raises(DataError, match="is not the model that was promoted"):
        fetch_champion(environment, "flights", tmp_path)


def test_without_champion_nothing_is_downloaded(environment: Settings, tmp_path: Path) -> None:
    assert fetch_champion(environment, "flights", tmp_path / "none") == (None, 0)
    assert not (tmp_path / "none").exists()


def test_a_signed_archive_says_which_champion_the_registry_must_hold(
    environment: Settings, registered: Callable[..., Path], case: SimpleNamespace, tmp_path: Path
) -> None:
    bundle = registered("run-1", case.GOOD, case.GOOD_BIAS)
    card = read_card(bundle)
    private, public = write_keys(tmp_path)
    archive = write_bento(environment, bundle)
    claim_run(open_ledger(environment.ledger_url), "run-1", "run-1", "training", "flights")
    candidate = Candidate(
        model="flights", version=card.version, digest=card.model, bento_digest=file_digest(archive),
        bento_uri=str(archive), run_id="run-1", verdict_digest="v" * 64, as_of=card.as_of,
    )  # fmt: skip
    assert promote(open_ledger(environment.ledger_url), candidate, None) == "promoted"
    asked = environment.model_copy(update={"model_verifying_key": public})
    with pytest.raises(Untrusted, match="no signature"):
        fetch_champion(asked, "flights", tmp_path / "unsigned")
    sign_archive(environment.model_copy(update={"model_signing_key": private}), archive)
    fetched, version = fetch_champion(asked, "flights", tmp_path / "signed")
    assert fetched is not None
    assert (read_card(fetched), version) == (card, 1)


def write_keys(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def write_bento(settings: Settings, bundle: Path) -> Path:
    """Archive a bundle as a Bento does, with what serving reads beside it."""
    card = read_card(bundle)
    spec = ServingSpec(
        use_case="flights", version=card.version, model=card.model, entities={"origin": "string"}, inputs=[],
        stale="null", missing="null", buckets=[0.5], workers=1, timeout_seconds=1, max_batch_rows=1,
        max_request_bytes=1000,
    )  # fmt: skip
    write_spec(bundle, spec)
    settings.bentos.mkdir(parents=True)
    archive = settings.bentos / "bento.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(bundle, f"src/{MODEL_FOLDER}")
    return archive
