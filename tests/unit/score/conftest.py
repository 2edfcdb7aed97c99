"""Champions in a ledger, their archives, and scoring sets: the small model of the serving tests in several versions."""

import importlib.util
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.bundle import model_digest, read_card, write_card
from components.core.digests import file_digest
from components.core.ledger.bentos import record_bento
from components.core.ledger.champions import Candidate, promote, read_champion
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run
from components.core.object_store import address, publish
from components.core.serving import MODEL_FOLDER, write_spec
from components.core.settings import Settings
from components.core.training_set import REGISTRY, ROWS, read_manifest, write_manifest

SERVED = Path(__file__).parents[1] / "serve" / "served_model.py"
START = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def model() -> ModuleType:
    """Return the module that makes a small served model."""
    spec = importlib.util.spec_from_file_location("driftline_served_model_score", SERVED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


Crown = Callable[..., Any]


@pytest.fixture(scope="session")
def crown(model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Crown:
    """Return a function that trains version n of the model, archives it and makes it the champion of a home."""
    from components.package.description import describe

    made: dict[tuple[int, tuple[tuple[str, str], ...]], Any] = {}

    def build(version: int, **policies: str) -> Any:
        key = (version, tuple(policies.items()))
        if key not in made:
            served = model.make_served(tmp_path_factory.mktemp(f"v{version}"), **policies)
            model.write_graph(served.bundle / "model.onnx", model.WEIGHTS * np.float32(version))
            changes = {"model": model_digest(served.bundle), "version": version}
            card = served.card.model_copy(update=changes)
            write_card(served.bundle, card)
            description = read_manifest(served.training_set)
            described = describe(model.PROBLEM, served.config, read_card(served.bundle), description, served.bundle)
            write_spec(served.bundle, described)
            (served.bundle / REGISTRY).write_bytes((served.training_set / REGISTRY).read_bytes())
            archive = served.root / "bento.tar"
            with tarfile.open(archive, "w") as tar:
                for path in sorted(served.bundle.iterdir()):
                    tar.add(path, f"./src/{MODEL_FOLDER}/{path.name}")
            made[key] = served, card, archive
        return made[key]

    def make_champion(settings: Settings, version: int, **policies: str) -> Any:
        served, card, archive = build(version, **policies)
        migrate(settings.ledger_url)
        ledger = open_ledger(settings.ledger_url)
        kept = settings.bentos / f"{file_digest(archive)}.tar"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(archive.read_bytes())
        publish(settings, kept)
        bento = record_bento(ledger, card.release, file_digest(archive), address(settings, kept))
        run = f"run-{version}"
        assert claim_run(ledger, run, run, "training", "rides")
        before = read_champion(ledger, "rides")
        candidate = Candidate(
            model="rides",
            version=version,
            digest=card.model,
            bento_digest=bento.digest,
            bento_uri=bento.uri,
            run_id=run,
            verdict_digest="v" * 64,
            as_of=START,
        )
        assert promote(ledger, candidate, before.version if before else None) == "promoted"
        return served

    return make_champion


@pytest.fixture
def scoring_set(model: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a scoring set of some days with some rows each."""

    def write(name: str = "set", *, days: int = 3, rows: int = 20, seed: int = 11, **columns: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        values = model.make_rows(days * rows, seed)
        step = timedelta(days=1) / rows
        values["ride"] = [f"r{n:05d}" for n in range(days * rows)]
        values["event_timestamp"] = pa.array([START + n * step for n in range(days * rows)], pa.timestamp("us", "UTC"))
        values["is_late"] = pa.nulls(days * rows, pa.float64())
        table = pa.table(values | columns)
        pq.write_table(table, folder / ROWS)
        served = model.INPUTS
        from components.core.training_set import TrainingSet

        write_manifest(
            folder,
            TrainingSet(
                use_case="rides",
                as_of=START + timedelta(days=days),
                snapshot="s" * 64,
                service="rides_v1",
                registry="r" * 64,
                digest=file_digest(folder / ROWS),
                rows=table.num_rows,
                id=["ride"],
                entities={"carrier": "string", "origin": "string", "badge": "int64"},
                label="is_late",
                inputs=served,
            ),
        )
        return folder

    return write
