import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.core.errors import ConfigError, DataError, GateRefused
from components.core.sections import Expectations
from components.core.tables import Snapshot
from components.core.verdict import Verdict, read_verdict, require_approved
from components.validate.judge import judge

Write = Callable[..., tuple[Path, Path, Snapshot]]

SUITE: dict[str, Any] = {
    "trips": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10.0}},
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "km", "min_value": 0.0, "max_value": 100.0},
        },
    ],
    "weather": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "temp_c", "min_value": -50.0, "max_value": 15.0},
            "severity": "warning",
        }
    ],
}


def run(manifest: Path, root: Path, suite: dict[str, Any] = SUITE) -> tuple[Verdict, str, dict[str, float]]:
    folder = manifest.parent
    metrics = judge(
        "demo", manifest, suite, Expectations(), root, verdict=folder / "verdict", page=folder / "out" / "page"
    )
    return read_verdict(folder / "verdict"), (folder / "out" / "page").read_text(encoding="utf-8"), metrics


def test_good_data_passes_and_the_next_step_may_go_on(
    snapshot_of: Write, trips: pa.Table, weather: pa.Table, tmp_path: Path
) -> None:
    manifest, root, snapshot = snapshot_of(trips=trips, weather=weather)
    verdict, page, metrics = run(manifest, root)
    assert (verdict.gate, verdict.subject, verdict.decision) == ("validate", snapshot.digest, "pass")
    assert require_approved(tmp_path / "verdict", gate="validate", subject=snapshot.digest) == verdict
    # 15 of 180 readings are above 15 degrees: told, not acted upon.
    assert [r.check for r in verdict.reasons if not r.passed] == ["weather.temp_c.expect_column_values_to_be_between"]
    assert metrics["failed_warning"] == 1
    assert metrics["failed_critical"] == 0
    assert metrics["rows"] == 270
    assert metrics["checks"] == len(verdict.reasons)
    assert "Passed with 1 warning" in page
    assert all(r.measured for r in verdict.reasons)
    assert all(r.allowed for r in verdict.reasons)


def test_a_critical_failure_rejects_and_tells_where(
    snapshot_of: Write, trips: pa.Table, weather: pa.Table, tmp_path: Path
) -> None:
    far = pc.multiply(trips["km"], 1.609)
    manifest, root, snapshot = snapshot_of(
        trips=trips.set_column(trips.column_names.index("km"), "km", far), weather=weather
    )
    verdict, page, _ = run(manifest, root)
    assert verdict.decision == "reject"
    with pytest.raises(GateRefused, match=r"trips\.km: expected between 0 and 100, found 27 of 90 rows failing"):
        require_approved(tmp_path / "verdict", gate="validate", subject=snapshot.digest)
    (failure,) = (f for f in verdict.evidence["failures"] if f["severity"] == "critical")
    assert failure["examples"][0]["trip"] == "t63"
    assert "Rejected" in page


@pytest.mark.parametrize("harm", ["missing file", "changed file", "no rows", "no column", "expectation raises"])
def test_it_always_finishes_with_a_rejecting_verdict(
    snapshot_of: Write, trips: pa.Table, weather: pa.Table, harm: str
) -> None:
    suite = json.loads(json.dumps(SUITE))
    if harm == "no rows":
        trips = trips.slice(0, 0)
    if harm == "no column":
        trips = trips.drop_columns(["km"])
    if harm == "expectation raises":
        suite["trips"][1]["kwargs"]["column"] = "city"
        suite["trips"][1]["severity"] = "info"
    manifest, root, snapshot = snapshot_of(trips=trips, weather=weather)
    if harm == "missing file":
        (root / snapshot.tables["trips"].partitions[0].path).unlink()
    if harm == "changed file":
        (root / snapshot.tables["trips"].partitions[0].path).write_bytes(b"PAR1 no longer")
    verdict, page, metrics = run(manifest, root, suite)
    assert verdict.decision == "reject"
    assert metrics["failed_critical"] >= 1
    assert all(r.check.startswith("trips") for r in verdict.reasons if not r.passed and r.severity == "critical")
    # Other tables are judged all the same.
    assert any(r.check.startswith("weather.temp_c") for r in verdict.reasons)
    assert page.startswith("<!doctype html>")
    assert not any(isinstance(r.measured, float) and math.isnan(r.measured) for r in verdict.reasons)


def test_a_table_without_expectations_still_gets_the_built_in_checks(snapshot_of: Write, trips: pa.Table) -> None:
    manifest, root, _ = snapshot_of(trips=pa.concat_tables([trips, trips.slice(0, 1)]))
    verdict, _, _ = run(manifest, root, {})
    assert [r.check for r in verdict.reasons if not r.passed] == ["trips.trip.unique_ids"]


def test_a_wrong_suite_is_a_configuration_error_and_writes_nothing(snapshot_of: Write, trips: pa.Table) -> None:
    manifest, root, _ = snapshot_of(trips=trips)
    with pytest.raises(ConfigError, match="unknown table 'weather'"):
        run(manifest, root)
    assert not (manifest.parent / "verdict").exists()


def test_a_snapshot_of_another_use_case_is_refused(snapshot_of: Write, trips: pa.Table, tmp_path: Path) -> None:
    manifest, root, _ = snapshot_of(trips=trips)
    with pytest.raises(DataError, match="another use case"):
        judge("flights", manifest, {}, Expectations(), root, verdict=tmp_path / "v", page=tmp_path / "p")


def test_the_same_snapshot_gets_the_same_verdict(snapshot_of: Write, trips: pa.Table, weather: pa.Table) -> None:
    manifest, root, _ = snapshot_of(trips=trips, weather=weather)
    first = run(manifest, root)
    assert run(manifest, root) == first


def test_the_wrapper_hands_files_and_settings_over(
    snapshot_of: Write, trips: pa.Table, weather: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import dsl

    from components.validate.component import validate

    manifest, _, snapshot = snapshot_of(trips=trips, weather=weather)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path))
    outputs = {
        "verdict": dsl.Artifact(uri=str(tmp_path / "k" / "verdict")),
        "page": dsl.HTML(uri=str(tmp_path / "k" / "page")),
        "metrics": dsl.Metrics(uri=str(tmp_path / "k" / "metrics")),
    }
    validate.python_func(
        use_case="demo", snapshot=dsl.Dataset(uri=str(manifest)), suite=SUITE, config={"examples": 2.0}, **outputs
    )
    assert read_verdict(tmp_path / "k" / "verdict").subject == snapshot.digest
    assert outputs["metrics"].metadata["failed_warning"] == 1
    assert (tmp_path / "k" / "page").read_text(encoding="utf-8").startswith("<!doctype html>")
