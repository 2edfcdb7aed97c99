"""One window of a real log, champion and ledger: evidence, page, and what is told when something is not there."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.core.errors import DataError, PackagingFailed
from components.core.tables import TIMESTAMP

Watch = Callable[..., tuple[dict[str, float], dict[str, Any]]]


def test_a_sound_month_is_measured(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    scalars, evidence = watch_world("2024-04-02")
    assert evidence["window"] == {"first": "2024-03-01T00:00:00Z", "last": "2024-04-01T00:00:00Z"}
    assert evidence["rows"] == evidence["labelled_rows"] == 31 * 96
    assert [r for r in evidence["sanity"] if not r["passed"]] == []
    assert scalars["broken"] == 0
    assert {p["metric"]: p["fell"] for p in evidence["performance"]} == {"auc": False, "ece": False}
    assert len(evidence["drift"]["columns"]) == 7
    page = (tmp_path / "page").read_text()
    assert "Is the input sound?" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "report_rows is 0" in (tmp_path / "report").read_text()


def test_labels_join_by_entity_and_instant_where_requests_have_other_names(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"), request_ids=False)
    _, evidence = watch_world("2024-04-02")
    instants = world.between("2024-03-01", "2024-04-01").select(["origin", "event_timestamp"]).to_pylist()
    seen = [tuple(row.values()) for row in instants]
    assert evidence["labelled_rows"] == sum(seen.count(pair) == 1 for pair in seen)


def test_the_same_evidence_whenever_it_is_measured(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    _, first = watch_world("2024-04-02")
    _, again = watch_world("2024-04-20")
    assert first.pop("as_of") != again.pop("as_of")
    assert first == again


def test_labels_that_are_not_known_yet_do_not_count(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    config = world.config.model_copy(update={"label_delay_hours": 0})
    _, evidence = watch_world("2024-04-01T00:00:00", config=config)
    known = world.between("2024-03-01", "2024-04-01").column("label_timestamp").to_pylist()
    assert evidence["labelled_rows"] == sum(f"{k:%Y-%m-%d %H:%M}" <= "2024-04-01 00:00" for k in known) < 31 * 96


def test_labels_that_never_come_leave_performance_unknown(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    never = world.replace(world.rows, "late", [None] * world.rows.num_rows)
    _, evidence = watch_world("2024-04-02", snapshot=world.relabel(never))
    assert evidence["labelled_rows"] == 0
    assert [p["fell"] for p in evidence["performance"]] == [None, None]
    assert "0 labels are known" in evidence["performance"][0]["message"]
    assert evidence["drift"] is not None


def test_one_class_leaves_auc_unknown_and_calibration_judged(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    snapshot = world.relabel(world.replace(world.rows, "late", np.zeros(world.rows.num_rows)))
    _, evidence = watch_world("2024-04-02", snapshot=snapshot)
    assert {p["metric"]: p["fell"] for p in evidence["performance"]} == {"auc": None, "ece": True}


def test_labels_that_lost_their_link_to_the_inputs_fell(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    shuffled = np.random.default_rng(1).permutation(world.rows.column("late").to_numpy())
    _, evidence = watch_world("2024-04-02", snapshot=world.relabel(world.replace(world.rows, "late", shuffled)))
    auc = evidence["performance"][0]
    assert auc["fell"] is True
    assert auc["message"].startswith("AUC fell")


def test_a_corrected_label_counts_from_its_own_instant(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    late = world.rows
    corrected = world.replace(late, "late", np.zeros(late.num_rows))
    at = pa.array([i + timedelta(days=40) for i in late.column("label_timestamp").to_pylist()], TIMESTAMP)
    corrected = corrected.set_column(late.column_names.index("label_timestamp"), "label_timestamp", at)
    snapshot = world.relabel(pa.concat_tables([late, corrected]))
    _, before = watch_world("2024-04-02", snapshot=snapshot)
    _, after = watch_world("2024-04-29", snapshot=snapshot)
    assert before["performance"][0]["fell"] is False
    assert before["performance"][0]["window"] != after["performance"][0]["window"]


def test_few_predictions_are_no_verdict(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-03-03"))
    scalars, evidence = watch_world("2024-04-02")
    assert evidence["rows"] == 192
    assert evidence["drift"] is None
    assert "too few" in evidence["notes"][0]
    assert scalars["rows"] == 192


def test_an_empty_window_is_evidence_too(world: Any, watch_world: Watch) -> None:
    scalars, evidence = watch_world("2024-04-02")
    assert evidence["rows"] == 0
    assert evidence["sanity"] == []
    assert "answered nothing" in evidence["notes"][0]
    assert scalars == {"rows": 0.0, "labelled_rows": 0.0, "broken": 0.0}


def test_rows_that_the_model_was_fitted_on_are_not_judged(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-02-01", "2024-03-01"))
    _, evidence = watch_world("2024-03-02")
    assert evidence["rows"] == world.between("2024-02-10", "2024-03-01").num_rows
    assert "was fitted on rows before 2024-02-10: 864 predictions" in evidence["notes"][0]


def test_an_instant_before_the_model_says_so(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-01-01", "2024-04-01"))
    _, evidence = watch_world("2024-02-02")
    assert evidence["rows"] == 0
    assert "was fitted on rows before 2024-02-10" in evidence["notes"][0]


def test_an_earlier_instant_never_sees_later_rows(world: Any, watch_world: Watch) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    _, before = watch_world("2024-04-02")
    world.log(world.between("2024-04-01", "2024-05-01"))
    _, after = watch_world("2024-04-02")
    assert before == after


def test_no_champion_is_told(settings: Any, world: Any, watch_world: Watch) -> None:
    from components.core.ledger.engine import migrate

    empty = settings.model_copy(update={"ledger_url": f"sqlite:///{settings.home}/other.db"})
    migrate(empty.ledger_url)
    with pytest.raises(PackagingFailed, match="trips has no champion yet"):
        watch_world("2024-04-02", settings=empty)


def test_a_lost_or_changed_archive_is_told(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    content = world.archive.read_bytes()
    world.archive.write_bytes(content + b"\0" * 512)
    with pytest.raises(PackagingFailed, match="is not the one that was probed"):
        watch_world("2024-04-02")
    world.archive.unlink()
    with pytest.raises(PackagingFailed, match="is gone"):
        watch_world("2024-04-02")
    assert not (tmp_path / "evidence").exists()


def test_a_foreign_snapshot_is_refused(world: Any, watch_world: Watch, tmp_path: Path) -> None:
    text = world.snapshot.read_text().replace('"use_case": "trips"', '"use_case": "other"')
    foreign = tmp_path / "foreign.json"
    foreign.write_text(text)
    with pytest.raises(DataError, match="another use case"):
        watch_world("2024-04-02", snapshot=foreign)
