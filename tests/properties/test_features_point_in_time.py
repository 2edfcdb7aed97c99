"""The point-in-time join against an oracle that looks at every row in a Python loop."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.tables import TIMESTAMP
from components.features.asof_sql import View
from components.features.point_in_time import join, latest, rows

T0 = datetime(2024, 2, 28, 23, 0, tzinfo=UTC)
MS = 1000
SCHEMA = pa.schema(
    [
        ("k", pa.string()),
        ("j", pa.string()),
        ("event_timestamp", TIMESTAMP),
        ("created_timestamp", TIMESTAMP),
        ("x", pa.float64()),
        ("s", pa.string()),
    ]
)

# A coarse grid makes ties and exact TTL edges common; the fine offsets miss an edge by one microsecond or millisecond.
offsets = st.builds(
    lambda step, fine: step * 60_000_000 + fine,
    st.integers(0, 3),
    st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1, -MS, MS]),
)
ttls = st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(minutes=2), timedelta(microseconds=1)])
fact = st.fixed_dictionaries(
    {
        "k": st.sampled_from(["a", "a", "a", "a", "b", None]),
        "j": st.sampled_from(["p", "p", "p", "q"]),
        "event_timestamp": offsets,
        "created_timestamp": st.one_of(offsets, offsets, offsets, st.none()),
        "x": st.sampled_from([None, -1.5, 0.0, 0.5, 2.0, 3.25]),
        "s": st.sampled_from([None, "u", "v"]),
    }
)
# Hypothesis favours short lists, in which hardly anything collides.
facts = st.one_of(st.lists(fact, max_size=4), st.lists(fact, min_size=8, max_size=20))
keys = st.tuples(st.sampled_from(["a", "a", "a", "b", "never seen", None]), st.sampled_from(["p", "p", "p", "q", None]))
entity = st.builds(lambda key, instant: (*key, instant), keys, offsets)
entities = st.one_of(st.lists(entity, max_size=2), st.lists(entity, min_size=8, max_size=20))


def at(micros: int | None) -> datetime | None:
    return None if micros is None else T0 + timedelta(microseconds=micros)


def write(folder: Path, found: list[dict[str, Any]]) -> list[Path]:
    """Write the facts as two partitions, as a snapshot would."""
    dated = [
        {**f, "event_timestamp": at(f["event_timestamp"]), "created_timestamp": at(f["created_timestamp"])}
        for f in found
    ]
    files = []
    for number, part in enumerate((dated[::2], dated[1::2])):
        path = folder / f"part'{number}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), path)
        files.append(path)
    return files


def rank(fact: dict[str, Any], *, created: bool) -> tuple[Any, ...]:
    """Order facts as the documentation says: instant, then creation, then values; null comes first."""
    parts = [fact["event_timestamp"], *([fact["created_timestamp"]] if created else []), fact["x"], fact["s"]]
    return tuple((part is not None, part) if part is not None else (False, 0) for part in parts)


def oracle(
    found: list[dict[str, Any]], row: tuple[Any, ...], ttl: timedelta, *, created: bool, cutoff: bool
) -> tuple[Any, Any]:
    k, j, instant = row
    best = None
    for fact in found:
        if k is None or j is None or fact["k"] != k or fact["j"] != j or fact["event_timestamp"] > instant:
            continue
        if cutoff and created and (fact["created_timestamp"] is None or fact["created_timestamp"] > instant):
            continue
        if best is None or rank(fact, created=created) > rank(best, created=created):
            best = fact
    limit = ttl // timedelta(microseconds=1)
    if best is None or (limit and instant - best["event_timestamp"] > limit):
        return None, None
    return best["x"], best["s"]


def view(files: list[Path], ttl: timedelta, *, created: bool) -> View:
    return View(
        name="facts",
        files=files,
        keys={"k": "left k", "j": "j"},
        columns={"x": "x", "s": 'say "s"'},
        created="created_timestamp" if created else "",
        ttl=ttl,
    )


def frame(wanted: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        {
            "left k": pa.array([row[0] for row in wanted], pa.string()),
            "j": pa.array([row[1] for row in wanted], pa.string()),
            "event_timestamp": pa.array([at(row[2]) for row in wanted], TIMESTAMP),
        }
    )


@settings(max_examples=120, deadline=None)
@given(found=facts, wanted=entities, ttl=ttls, created=st.booleans(), cutoff=st.booleans())
def test_join_equals_the_oracle_in_every_row(
    found: list[dict[str, Any]], wanted: list[tuple[Any, ...]], ttl: timedelta, created: bool, cutoff: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        joined = join(
            frame(wanted),
            "event_timestamp",
            [view(write(Path(folder), found), ttl, created=created)],
            only_created=cutoff,
        )
    assert joined.select(["left k", "j", "event_timestamp"]).equals(frame(wanted))
    expected = [oracle(found, row, ttl, created=created, cutoff=cutoff) for row in wanted]
    assert list(zip(joined["x"].to_pylist(), joined['say "s"'].to_pylist(), strict=True)) == expected


@settings(max_examples=40, deadline=None)
@given(found=facts, wanted=entities, ttl=ttls, now=offsets, data=st.data())
def test_neither_order_nor_the_future_changes_a_row(
    found: list[dict[str, Any]], wanted: list[tuple[Any, ...]], ttl: timedelta, now: int, data: st.DataObject
) -> None:
    past = [row for row in wanted if row[2] <= now]
    other = [f for f in found if f["event_timestamp"] <= now]
    other += [{**f, "event_timestamp": max(f["event_timestamp"], now + 1)} for f in data.draw(facts)]
    other = data.draw(st.permutations(other))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first = join(frame(past), "event_timestamp", [view(write(Path(one), found), ttl, created=True)])
        second = join(frame(past), "event_timestamp", [view(write(Path(two), other), ttl, created=True)])
    assert first.equals(second)


@settings(max_examples=40, deadline=None)
@given(found=facts, start=offsets, end=offsets, created=st.booleans())
def test_latest_equals_the_oracle(found: list[dict[str, Any]], start: int, end: int, created: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        v = view(write(Path(folder), found), timedelta(0), created=created)
        got = latest(v, at(start), at(end))
        everything = rows(v, at(start), at(end))
    inside = [f for f in found if f["k"] is not None and start <= f["event_timestamp"] <= end]
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for fact in inside:
        key = (fact["k"], fact["j"])
        if key not in best or rank(fact, created=created) > rank(best[key], created=created):
            best[key] = fact
    expected = [(*key, at(fact["event_timestamp"]), fact["x"], fact["s"]) for key, fact in sorted(best.items())]
    assert [tuple(row[c] for c in ("k", "j", "event_timestamp", "x", "s")) for row in got.to_pylist()] == expected
    assert everything.num_rows == len(inside)
