"""Schedules from ConfigMaps: a wrong one is refused with the reason, and neither stops nor deletes anything else."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.controller.declared import File, Refused, read_files
from pipelines.controller.exposition import Exposition
from pipelines.controller.schedules import changes_for, schedule_samples
from pipelines.schedules.model import Existing, Schedule, Spec, Wanted
from pipelines.schedules.plan import plan
from pipelines.schedules.resolve import Resolved

GOOD: dict[str, Any] = {
    "name": "birds-monitoring",
    "use_case": "birds",
    "pipeline": "monitoring",
    "cron": "0 30 6 * * MON",
    "version": "birds-monitoring-1a2b3c4d5e6f",
}


def file(origin: str = "ns/map/a.yaml", **update: Any) -> File:
    return File(origin, yaml.safe_dump({key: value for key, value in (GOOD | update).items() if value is not None}))


def resolved(schedule: Schedule) -> Resolved:
    spec = Spec(use_case=schedule.use_case, pipeline="birds-monitoring", version=schedule.version, cron=schedule.cron)
    wanted = Wanted(name=schedule.name, enabled=schedule.enabled, spec=spec, arguments={})
    return Resolved(wanted=wanted, title="Birds")


def existing(name: str, *, digest: str = "other", version: str = "birds-monitoring-0") -> Existing:
    has = {"version": version, "cron": "0 0 0 * * *", "parameters": {}, "description": ""}
    has |= {"max_concurrency": 1, "catchup": False, "starts": "", "ends": ""}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Existing(id=f"id-{name}", name=name, enabled=True, created_at=at, digest=digest, has=has)


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ({"version": None}, "`version` is missing"),
        ({"version": ""}, "`version` is missing"),
        ({"cron": "30 6 * * MON"}, "five fields"),
        ({"cron": "0 0 0 30 2 ?"}, "no such day"),
        ({"pipeline": "baking"}, "pipeline"),
        ({"use_case": "a/b"}, "use_case"),
        ({"vresion": "x"}, "did you mean 'version'"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"name": None}, "name"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason_and_others_are_not(update: dict[str, Any], says: str) -> None:
    declared = read_files([file("ns/map/wrong.yaml", **update), file(name="birds-other")])
    assert [schedule.name for schedule in declared.schedules] == ["birds-other"]
    (refused,) = declared.refused
    assert says in refused.reason
    assert "ns/map/wrong.yaml" in refused.reason
    assert refused.name == (update.get("name", GOOD["name"]) or "")


@pytest.mark.parametrize("text", ["a: [", "- a", "", "just text", "\t", "a: b: c"])
def test_what_is_no_schedule_at_all_is_refused(text: str) -> None:
    declared = read_files([File("ns/map/x.yaml", text), file()])
    assert [schedule.name for schedule in declared.schedules] == [GOOD["name"]]
    assert [one.name for one in declared.refused] == [""]


def test_equal_files_are_one_schedule_and_different_ones_none() -> None:
    """While a ConfigMap is replaced by one of another name, both are there for a moment."""
    assert [s.name for s in read_files([file("a/b/c"), file("a/b2/c")]).schedules] == [GOOD["name"]]
    declared = read_files([file("a/b/c"), file("a/b2/c", cron="@daily"), file("a/b3/c")])
    assert declared.schedules == []
    assert [one.name for one in declared.refused] == [GOOD["name"]]
    assert "two files" in declared.refused[0].reason


names = st.sampled_from([f"birds-{n}" for n in range(5)])
SCHEDULES = {one.name: one for one in read_files([file(f"a/b/{n}", name=f"birds-{n}") for n in range(5)]).schedules}


@settings(deadline=None)
@given(good=st.sets(names), refused=st.sets(names), on_server=st.sets(names), unreadable=st.booleans())
def test_only_what_no_file_may_mean_is_deleted(
    good: set[str], refused: set[str], on_server: set[str], unreadable: bool
) -> None:
    wrong = [Refused(name, "birds", "r") for name in sorted(refused)] + ([Refused("", "", "r")] if unreadable else [])
    changes = changes_for(
        {name: resolved(SCHEDULES[name]) for name in sorted(good - refused)},
        wrong,
        [existing(name) for name in sorted(on_server)],
    )
    by_action: dict[str, set[str]] = {}
    for change in changes:
        by_action.setdefault(change.action, set()).add(change.name)
    assert by_action.get("create", set()) == good - refused - on_server
    assert by_action.get("replace", set()) == (good - refused) & on_server
    left = on_server - good - refused
    assert by_action.get("delete", set()) == (set() if unreadable else left)
    assert by_action.get("undeclared", set()) == (left if unreadable else set())
    samples = schedule_samples(changes, wrong)
    Exposition().put("s", samples)
    totals = {dict(sample.labels)["status"]: 0 for sample in samples}
    for sample in samples:
        assert isinstance(sample.value, int)
        totals[sample.labels["status"]] += sample.value
    if samples:
        assert totals["refused"] == len(wrong)
        assert sum(totals.values()) == len(changes) + len(wrong)


def test_what_agrees_is_current() -> None:
    (schedule,) = read_files([file()]).schedules
    wanted = resolved(schedule)
    same = existing(schedule.name, digest=wanted.wanted.spec.digest, version=schedule.version)
    changes = changes_for({schedule.name: wanted}, [], [same])
    assert {(s.labels["status"], s.value) for s in schedule_samples(changes, [])} == {
        ("current", 1),
        ("differs", 0),
        ("refused", 0),
        ("undeclared", 0),
    }
    assert plan([wanted.wanted], [same], prune=True) == changes


@given(use_case=st.text(max_size=70))
def test_a_refused_files_use_case_is_a_label_only_where_it_is_a_name(use_case: str) -> None:
    Exposition().put("s", schedule_samples([], [Refused("x", use_case, "r")]))
