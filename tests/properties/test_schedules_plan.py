"""Plans of schedules: pure, convergent, and never two enabled, wherever carrying one out stops."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedules.model import MAX_DESCRIPTION, MAX_NAME, Existing, Spec, Wanted, marker, read_marker
from pipelines.schedules.plan import DIFFERS, NEW, Difference, Step, change_of, plan, steps

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
CRONS = ("0 0 6 * * MON", "@daily", "@hourly")


def spec(cron: str, **more: Any) -> Spec:
    return Spec(use_case="flights", pipeline="flights-training", version="v1", cron=cron, **more)


def wanted(name: str = "a", cron: str = CRONS[0], *, enabled: bool = True) -> Wanted:
    return Wanted(name=name, enabled=enabled, spec=spec(cron), arguments={})


def as_shown(known: Spec) -> dict[str, Any]:
    """Return what the API tells of a recurring run that was made for a spec."""
    return known.model_dump(mode="json", exclude={"use_case", "pipeline", "parameters"}) | {"parameters": {}}


class Server:
    """The recurring runs of a KFP server, as a model: what each call leaves."""

    def __init__(self, existing: list[Existing]) -> None:
        self.runs = {found.id: found for found in existing}
        self.made = 0
        self.minutes = 0

    def take(self, schedule: Wanted, step: Step, new: str) -> str:
        if step.call == "create":
            self.made += 1
            self.minutes += 1
            new = f"made-{self.made}"
            found = read_marker(
                marker(schedule, step.target),
                id=new,
                name=schedule.name,
                has=as_shown(schedule.spec),
                enabled=False,
                created_at=NOON + timedelta(minutes=self.minutes),
            )
            assert found is not None
            self.runs[new] = found
            return new
        target = new if step.target == NEW else step.target
        if step.call == "delete":
            del self.runs[target]
        else:
            self.runs[target] = self.runs[target].model_copy(update={"enabled": step.call == "enable"})
        return new

    def enabled(self) -> int:
        return sum(found.enabled for found in self.runs.values())

    def list(self) -> list[Existing]:
        return list(self.runs.values())


def follow(server: Server, schedule: Wanted | None, *, stop_after: int = 100) -> list[int]:
    """Carry out what `steps` says, up to some call; return how many were enabled after each."""
    counts, new = [], ""
    for step in steps(schedule, server.list())[:stop_after]:
        new = server.take(schedule or wanted(), step, new)
        counts.append(server.enabled())
    return counts


@st.composite
def states(draw: st.DrawFn, *, at_most_enabled: int = 1) -> list[Existing]:
    """Draw recurring runs of one schedule in any condition that a stop, or a person, may leave."""
    count = draw(st.integers(0, 4))
    ids = [f"run-{n}" for n in range(count)]
    enabled = draw(st.lists(st.sampled_from(ids), max_size=at_most_enabled, unique=True)) if ids else []
    return [
        Existing(
            id=id_,
            name="a",
            enabled=id_ in enabled,
            created_at=NOON - timedelta(seconds=draw(st.integers(0, 3))),
            digest=(known := spec(draw(st.sampled_from(CRONS)))).digest,
            has=as_shown(known),
            replaces=draw(st.sampled_from(["", "gone", *ids])),
        )
        for id_ in ids
    ]


WISHES = st.one_of(st.none(), st.builds(wanted, cron=st.sampled_from(CRONS), enabled=st.booleans()))


def is_reached(server: Server, schedule: Wanted | None) -> bool:
    if schedule is None:
        return not server.runs
    return [(f.digest, f.enabled) for f in server.list()] == [(schedule.spec.digest, schedule.enabled)]


@settings(max_examples=400, deadline=None)
@given(states(), WISHES)
def test_steps_lead_to_what_is_wanted_and_never_are_two_enabled(existing: list[Existing], wish: Wanted | None) -> None:
    server = Server(existing)
    counts = follow(server, wish)
    assert max(counts, default=0) <= 1
    assert is_reached(server, wish)
    assert steps(wish, server.list()) == []


@settings(max_examples=400, deadline=None)
@given(states(), st.lists(st.tuples(WISHES, st.integers(0, 5)), min_size=1, max_size=4), WISHES)
def test_any_number_of_stops_with_any_wishes_in_between_converges(
    existing: list[Existing], interrupted: list[tuple[Wanted | None, int]], last: Wanted | None
) -> None:
    server = Server(existing)
    for wish, calls in interrupted:
        assert max(follow(server, wish, stop_after=calls), default=0) <= 1
    assert max(follow(server, last), default=0) <= 1
    assert is_reached(server, last)


@settings(max_examples=200, deadline=None)
@given(states(at_most_enabled=4), WISHES)
def test_what_somebody_else_enabled_twice_is_mended_and_never_becomes_more(
    existing: list[Existing], wish: Wanted | None
) -> None:
    server = Server(existing)
    before = server.enabled()
    counts = follow(server, wish)
    assert all(count <= max(before, 1) for count in counts)
    assert is_reached(server, wish)


@settings(max_examples=200, deadline=None)
@given(states(), st.sampled_from(CRONS))
def test_a_schedule_that_runs_is_off_only_between_two_adjacent_calls(existing: list[Existing], cron: str) -> None:
    """And stopped right there, the next apply enables the new one before it does anything else."""
    wish = wanted(cron=cron)
    server = Server(existing)
    if server.enabled() == 0:
        return
    todo = steps(wish, existing)
    counts = follow(server, wish)
    off = [n for n, count in enumerate(counts) if count == 0]
    assert len(off) <= 1
    if off:
        assert todo[off[0]].call == "disable"
        assert todo[off[0] + 1] == Step("enable", NEW)
        stopped = Server(existing)
        follow(stopped, wish, stop_after=off[0] + 1)
        first = steps(wish, stopped.list())[0]
        assert first.call == "enable"
        assert stopped.runs[first.target].replaces in stopped.runs


@settings(max_examples=200, deadline=None)
@given(states(), WISHES)
def test_a_schedule_is_replaced_if_and_only_if_its_spec_differs(existing: list[Existing], wish: Wanted | None) -> None:
    change = change_of("a", wish, existing, prune=True)
    if wish is None or not existing:
        assert change.action in ("create", "delete")
        return
    assert change.current is not None
    assert (change.action == "replace") == (change.current.digest != wish.spec.digest)
    shown = {difference.field for difference in change.differences}
    assert ("cron" in shown) == (change.current.digest != wish.spec.digest)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.sampled_from(CRONS), st.booleans())),
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.sampled_from(CRONS), st.booleans())),
    st.booleans(),
)
def test_a_plan_is_empty_once_it_is_carried_out(
    declared: dict[str, tuple[str, bool]], before: dict[str, tuple[str, bool]], prune: bool
) -> None:
    wishes = [wanted(name, cron, enabled=enabled) for name, (cron, enabled) in declared.items()]
    server = Server([])
    for name, (cron, enabled) in before.items():
        schedule, new = wanted(name, cron, enabled=enabled), ""
        for step in steps(schedule, []):
            new = server.take(schedule, step, new)
    first = plan(wishes, server.list(), prune=prune)
    assert first == plan(list(reversed(wishes)), list(reversed(server.list())), prune=prune)
    by_name = {schedule.name: schedule for schedule in wishes}
    for change in first:
        if change.action in DIFFERS:
            assert prune or change.name in declared
            new = ""
            own = [found for found in server.list() if found.name == change.name]
            for step in steps(by_name.get(change.name), own):
                new = server.take(by_name.get(change.name) or wanted(change.name), step, new)
    again = plan(wishes, server.list(), prune=prune)
    assert {change.action for change in again} <= {"unchanged", "undeclared"}
    assert {f.name for f in server.list()} == (set(declared) if prune else {*declared, *before})


@given(st.text(), st.booleans())
def test_what_people_made_is_not_managed(description: str, enabled: bool) -> None:
    assert read_marker(description, id="r", name="a", enabled=enabled, created_at=NOON) is None


def test_a_clone_that_a_person_made_of_a_managed_one_is_his() -> None:
    text = marker(wanted(), "")
    assert read_marker(text, id="r", name="a", enabled=True, created_at=NOON) is not None
    assert read_marker(text, id="r", name="Clone of a", enabled=True, created_at=NOON) is None


@given(
    st.dictionaries(st.text(min_size=1, max_size=9), st.one_of(st.text(), st.integers(), st.booleans()), max_size=3),
    st.text(max_size=MAX_DESCRIPTION),
    st.text("abcdefgh-", min_size=1, max_size=MAX_NAME),
)
def test_the_marker_is_found_again_and_fits_kfps_database(
    parameters: dict[str, Any], description: str, name: str
) -> None:
    schedule = Wanted(
        name=name, enabled=True, spec=spec(CRONS[0], parameters=parameters, description=description), arguments={}
    )
    text = marker(schedule, "12345678-1234-1234-1234-123456789012")
    assert len(text) <= 255
    found = read_marker(text, id="r", name=name, enabled=True, created_at=NOON)
    assert found is not None
    assert found.digest == schedule.spec.digest == Spec(**schedule.spec.document()).digest
    assert found.replaces == "12345678-1234-1234-1234-123456789012"


def test_parameters_are_compared_key_by_key() -> None:
    """A section travels whole; what a person reads is the key that changed."""
    new = Wanted(
        name="a",
        enabled=True,
        spec=spec(CRONS[0], parameters={"monitor.min_rows": 500, "evaluate.margin": 0.1}),
        arguments={"monitor": {"min_rows": 500, "seed": 7}, "evaluate": {"margin": 0.1, "seed": 7}},
    )
    old = {"monitor": {"min_rows": 300, "seed": 7}, "as_of": "2013-04-01"}
    current = Existing(
        id="r", name="a", enabled=True, created_at=NOON, digest="other", has=as_shown(new.spec) | {"parameters": old}
    )
    assert change_of("a", new, [current], prune=False).differences == [
        Difference("parameters.as_of", "2013-04-01", None),
        Difference("parameters.evaluate.margin", None, 0.1),
        Difference("parameters.monitor.min_rows", 300, 500),
    ]
