"""The step: nothing unapproved is built, one archive per model, limits refuse, nothing is left behind."""

import tarfile
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from components.core.bootstrap import Interval
from components.core.bundle import ONNX, read_card, write_card
from components.core.digests import file_digest
from components.core.errors import DataError, GateRefused, PackagingFailed
from components.core.ledger.bentos import read_bento
from components.core.ledger.engine import open_ledger
from components.core.profile import HOLDOUT, PROFILE, REFERENCE, HoldoutPerformance, read_profile, write_profile
from components.core.serving import extract_model
from components.core.settings import Settings
from components.core.training_set import read_manifest
from components.core.verdict import read_verdict, write_verdict
from components.package.description import describe
from components.package.packaging import Packaged, keep_bento, package_model
from components.package.probe import probe_bento
from components.package.server import booted

GATE = {"performance": HoldoutPerformance(rows=100, days=1, metrics={"auc": Interval(estimate=0.7, low=0.6, high=0.8)})}


def run(settings: Settings, model: ModuleType, served: Any, **config: Any) -> Packaged:
    return package_model(
        settings,
        "rides",
        problem=model.PROBLEM,
        config=served.config.model_copy(update=config),
        model=served.bundle,
        training_set=served.training_set,
        verdict=served.verdict,
        bento=served.root / "bento",
        probe=served.root / "probe.md",
    )


def spec_of(model: ModuleType, served: Any) -> Any:
    card = read_card(served.bundle)
    return describe(model.PROBLEM, served.config, card, read_manifest(served.training_set), served.bundle)


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what other processes leave in the shared temporary folder out of sight."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)


def leftovers() -> set[str]:
    names = {p.name for p in Path(tempfile.gettempdir()).glob("driftline-*")}
    return names | {f"process {p.pid}" for p in psutil.Process().children(recursive=True)}


def test_an_approved_model_is_built_kept_probed_and_reused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    before = leftovers()
    packaged = run(ledger, model, plain)
    assert leftovers() == before
    archive = plain.root / "bento"
    assert file_digest(archive) == packaged.digest
    recorded = read_bento(open_ledger(ledger.ledger_url), plain.card.release)
    assert recorded is not None
    assert (recorded.digest, recorded.uri) == (packaged.digest, str(ledger.bentos / f"{packaged.digest}.tar"))
    assert packaged.model_version == 3
    found = packaged.measurements
    assert found.golden_rows == 64
    assert found.golden_difference <= 1e-6
    assert 0 < found.p50_ms <= found.p99_ms <= 250
    assert 50 < found.rss_mb <= 1500
    page = (plain.root / "probe.md").read_text()
    assert packaged.digest[:12] in page
    assert "**above**" not in page
    with tarfile.open(archive) as tar:
        names = [name.removeprefix("./") for name in tar.getnames()]
        requirements = tar.extractfile(next(n for n in tar.getnames() if n.endswith("env/python/requirements.txt")))
        assert requirements is not None
        lines = requirements.read().decode().split()
    assert "src/model/model.onnx" in names
    extract_model(archive, plain.root / "extracted")
    shipped = {p.name: p.read_bytes() for p in (plain.root / "extracted").iterdir()}
    for name in (PROFILE, REFERENCE):
        assert shipped[name] == (plain.bundle / name).read_bytes()
    assert HoldoutPerformance.model_validate_json(shipped[HOLDOUT]) == GATE["performance"]
    assert not [name for name in names if "golden" in name or "feast" in name or "tests" in name]
    assert any(line.startswith("onnxruntime==") for line in lines)
    assert all("==" in line and "://" not in line for line in lines)

    # A retry finds the record and builds nothing; a limit that is below what was measured refuses.
    with pytest.raises(GateRefused, match="p99 latency") as refused:
        run(ledger, model, plain, max_p99_ms=1e-3)
    assert refused.value.allowed == 1e-3
    assert file_digest(archive) == packaged.digest
    assert "**above**" in (plain.root / "probe.md").read_text()
    assert [p.name for p in ledger.bentos.iterdir()] == [f"{packaged.digest}.tar"]


def test_a_refused_model_is_not_built(ledger: Settings, model: ModuleType, plain: Any) -> None:
    model.refuse(plain)
    with pytest.raises(GateRefused, match="worse than the champion"):
        run(ledger, model, plain)
    assert not ledger.bentos.exists()
    assert not (plain.root / "bento").exists()


@pytest.mark.parametrize("name", [PROFILE, REFERENCE])
def test_a_bundle_without_a_reference_profile_is_refused(
    ledger: Settings, model: ModuleType, plain: Any, name: str
) -> None:
    (plain.bundle / name).unlink()
    with pytest.raises(DataError, match="no reference profile") as refused:
        run(ledger, model, plain)
    assert name in str(refused.value.measured)
    assert not ledger.bentos.exists()


def test_the_profile_of_another_model_is_refused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    write_profile(plain.bundle, read_profile(plain.bundle).model_copy(update={"model": "0" * 64}))
    with pytest.raises(DataError, match="belongs to another model"):
        run(ledger, model, plain)


def test_an_approval_without_measurements_is_refused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    write_verdict(plain.verdict, read_verdict(plain.verdict).model_copy(update={"evidence": {}}))
    with pytest.raises(DataError, match="how the model performed") as refused:
        run(ledger, model, plain)
    assert refused.value.measured == "rows, days, metrics"
    assert not ledger.bentos.exists()


def test_a_verdict_on_another_model_does_not_count(ledger: Settings, model: ModuleType, plain: Any) -> None:
    write_verdict(plain.verdict, read_verdict(plain.verdict).model_copy(update={"subject": "0" * 64}))
    with pytest.raises(DataError, match="does not judge"):
        run(ledger, model, plain)
    assert not ledger.bentos.exists()


def test_a_changed_model_is_refused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    model.tamper(plain)
    with pytest.raises(DataError, match="not the one its card describes"):
        run(ledger, model, plain)


def test_another_training_set_is_refused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    write_card(plain.bundle, plain.card.model_copy(update={"training_set": "0" * 64}))
    with pytest.raises(DataError, match="on this training set"):
        run(ledger, model, plain)


def test_a_lost_archive_is_an_error_and_not_built_again(ledger: Settings, model: ModuleType, plain: Any) -> None:
    spec = spec_of(model, plain)
    kept = keep_bento(ledger, spec, plain.card, bundle=plain.bundle, training_set=plain.training_set, **GATE)
    assert keep_bento(ledger, spec, plain.card, bundle=plain.bundle, training_set=plain.training_set, **GATE) == kept
    kept.write_bytes(b"damaged")
    with pytest.raises(DataError, match="gone or damaged"):
        keep_bento(ledger, spec, plain.card, bundle=plain.bundle, training_set=plain.training_set, **GATE)


def test_a_bento_that_does_not_equal_its_model_is_refused(ledger: Settings, model: ModuleType, plain: Any) -> None:
    spec = spec_of(model, plain)
    kept = keep_bento(ledger, spec, plain.card, bundle=plain.bundle, training_set=plain.training_set, **GATE)
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = plain.bundle / "golden.parquet"
    golden = pq.read_table(path)
    shifted = pc.add(golden.column("prediction"), pa.scalar(2e-6, pa.float32()))
    pq.write_table(golden.set_column(golden.num_columns - 1, "prediction", shifted), path)
    before = leftovers()
    with pytest.raises(PackagingFailed, match="does not predict what its model predicts") as failed:
        probe_bento(kept, spec, plain.config, bundle=plain.bundle, training_set=plain.training_set)
    assert isinstance(failed.value.measured, float)
    assert 1e-6 < failed.value.measured < 3e-6
    assert leftovers() == before


@pytest.mark.slow
def test_a_bento_that_cannot_start_is_told_apart(ledger: Settings, model: ModuleType, plain: Any) -> None:
    spec = spec_of(model, plain)
    (plain.bundle / ONNX).write_bytes(b"no graph")
    broken = plain.card.model_copy(update={"model": "b" * 64})
    kept = keep_bento(ledger, spec, broken, bundle=plain.bundle, training_set=plain.training_set, **GATE)
    before = leftovers()
    with pytest.raises(PackagingFailed, match="does not start") as failed:
        probe_bento(kept, spec, plain.config, bundle=plain.bundle, training_set=plain.training_set)
    assert "onnxruntime" in str(failed.value.measured)
    assert leftovers() == before


@pytest.mark.slow
def test_a_bento_that_is_not_ready_in_time_is_ended(ledger: Settings, model: ModuleType, plain: Any) -> None:
    spec = spec_of(model, plain)
    kept = keep_bento(ledger, spec, plain.card, bundle=plain.bundle, training_set=plain.training_set, **GATE)
    before = leftovers()
    with (
        pytest.raises(PackagingFailed, match="not ready in time"),
        booted(kept, spec.tag, online_store_url="sqlite:////nowhere/online.db", boot_seconds=0.5),
    ):
        pytest.fail("it was ready in half a second")
    assert leftovers() == before


@pytest.mark.slow
@pytest.mark.parametrize("policies", [{}, {"stale": "reject", "missing": "reject"}])
def test_lookups_by_key_are_probed_under_every_policy(
    ledger: Settings, model: ModuleType, tmp_path: Path, policies: dict[str, str]
) -> None:
    served = model.make_served(tmp_path / "served", **policies)
    found = run(ledger, model, served).measurements
    assert found.online_rows == 16
    assert found.online_difference <= 1e-6


@pytest.mark.slow
def test_a_rejecting_bento_names_feature_and_age(ledger: Settings, model: ModuleType, tmp_path: Path) -> None:
    from datetime import timedelta

    import pandas as pd

    served = model.make_served(tmp_path / "served", stale="reject", missing="reject")
    spec = spec_of(model, served)
    kept = keep_bento(ledger, spec, served.card, bundle=served.bundle, training_set=served.training_set, **GATE)
    store = model.open_store(served.root)
    row = {"origin": ["EWR"], "origin_late": [0.5], "origin_kind": ["big"], "event_timestamp": [model.NOW]}
    store.write_to_online_store("origin_stats", df=pd.DataFrame(row))
    keys = {"carrier": "AA", "origin": "EWR", "badge": None, "distance": 1.0}
    with booted(kept, spec.tag, online_store_url=f"sqlite:///{served.root}/online.db") as server:
        late = (model.NOW + timedelta(hours=7)).isoformat()
        status, answer = server.post("/predict", keys | {"as_of": late})
        assert (status, answer["stale"]) == (422, {"origin_late": 25200.0, "origin_kind": 25200.0})
        assert "origin_late (25200 s)" in answer["error"]
        status, answer = server.post("/predict", keys | {"as_of": model.NOW.isoformat()})
        assert (status, answer["missing"]) == (422, {"pair_delay": None, "badge_year": None})
