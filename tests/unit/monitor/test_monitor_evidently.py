"""Evidently shows our verdict: its dataset flag, its columns and its workspace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.evidence import Evidence
from components.monitor.evidently_report import dataset_flag, default_flag, make_report, write_report
from components.monitor.watched import load_champion

Watch = Callable[..., tuple[dict[str, float], dict[str, Any]]]
ROWS = 400


@pytest.fixture
def shown(world: Any, watch_world: Watch, tmp_path: Path) -> Callable[[Any], tuple[Evidence, dict[str, Any]]]:
    """Return a function that logs rows, watches them, and returns our evidence and Evidently's dictionary."""

    def run(rows: Any) -> tuple[Evidence, dict[str, Any]]:
        world.log(rows)
        _, plain = watch_world("2024-04-02")
        found = Evidence.model_validate(plain)
        model = load_champion(world.settings, "trips", tmp_path / "bento")
        window = world.read("2024-03-01", "2024-04-01")
        tests = [test for test in (found.drift, found.prediction_drift) if test is not None]
        return found, make_report(model, window, tests, limit=ROWS, seed=1).dict()

    return run


def by_column(report: dict[str, Any]) -> dict[str, bool]:
    """Return which columns Evidently calls drifted."""
    found = {}
    for test in report["tests"]:
        column = test["metric_config"]["params"].get("column")
        if column:
            found[column] = test["status"] == "FAIL"
    return found


@pytest.mark.parametrize("shift", [0.0, 60.0])
def test_its_flag_is_our_verdict(world: Any, shown: Any, shift: float) -> None:
    month = world.between("2024-03-01", "2024-04-01")
    delay = month.column("delay").to_numpy()
    found, report = shown(world.replace(month, "delay", delay + shift))
    ours = {c.column: c.drifted for test in (found.drift, found.prediction_drift) for c in test.columns}
    assert ours["delay"] is (shift > 0)
    assert by_column(report) == ours
    assert dataset_flag(report) is any(ours.values())
    dataset = next(t for t in report["tests"] if "column" not in t["metric_config"]["params"])
    assert (dataset["status"] == "FAIL") is any(ours.values())


def test_an_undrifted_window_raises_no_flag(world: Any, shown: Any) -> None:
    """Rows of the reference, at other instants: nothing can have moved."""
    month = world.between("2024-03-01", "2024-04-01")
    past = world.between("2024-01-01", "2024-03-01")
    chosen = np.sort(np.random.default_rng(3).choice(past.num_rows, month.num_rows, replace=False))
    for name in ("carrier", "hour", "delay", "late_share", "temp_f", "humidity_pct", "wind_mph"):
        month = world.replace(month, name, past.column(name).take(chosen).to_pylist())
    found, report = shown(month)
    assert found.drift is not None
    assert not found.drift.drifted
    assert not dataset_flag(report)
    assert not any(by_column(report).values())


def test_the_report_is_drawn_and_kept_once(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    from evidently.ui.workspace import Workspace

    world.log(world.between("2024-03-01", "2024-04-01"))
    config = world.config.model_copy(update={"report_rows": ROWS})
    for as_of in ("2024-04-02", "2024-04-03"):
        watch_world(as_of, config=config)
    assert "family-wise by permutation" in (tmp_path / "report").read_text()
    workspace = Workspace.create(str(world.settings.home / "evidently"))
    (project,) = workspace.list_projects()
    assert project.name == "trips"
    (run,) = workspace.list_runs(project.id)
    assert f"{workspace.get_run(project.id, run).timestamp:%Y-%m-%d}" == "2024-04-01"


def test_evidentlys_own_flag_is_evidence_where_a_policy_asks(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    month = world.between("2024-03-01", "2024-04-01")
    world.log(month)
    _, silent = watch_world("2024-04-02")
    assert silent["evidently"] is None
    config = world.config.model_copy(update={"policy": "evidently", "report_rows": ROWS})
    _, asked = watch_world("2024-04-02", config=config)
    model = load_champion(world.settings, "trips", tmp_path / "bento")
    window = world.read("2024-03-01", "2024-04-01")
    assert asked["evidently"] is default_flag(model, window, limit=ROWS, seed=config.seed)


def test_a_frame_that_cannot_be_drawn_costs_no_evidence(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    _, plain = watch_world("2024-04-02")
    model = load_champion(world.settings, "trips", tmp_path / "bento")
    nothing = world.read("2024-03-01", "2024-04-01").select(["as_of"])
    found = Evidence.model_validate(plain)
    write_report(tmp_path / "page.html", tmp_path / "workspace", found, model, nothing, limit=ROWS, seed=1)
    assert "Evidently cannot report this window" in (tmp_path / "page.html").read_text()
    assert not (tmp_path / "workspace").exists()


def test_a_column_without_values_is_left_out_of_the_report(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    month = world.between("2024-03-01", "2024-04-01")
    world.log(world.replace(month, "humidity_pct", [None] * month.num_rows))
    config = world.config.model_copy(update={"report_rows": ROWS})
    scalars, evidence = watch_world("2024-04-02", config=config)
    assert scalars["broken"] == 1
    assert evidence["drift"] is not None
    assert "family-wise by permutation" in (tmp_path / "report").read_text()
