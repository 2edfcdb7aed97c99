"""Broken input is found and named; a season, new days and natural gaps are not broken."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.core.evidence import Window
from components.core.tables import read_snapshot
from components.core.verdict import Reason
from components.monitor.sanity import CHECKS, check_sanity
from components.monitor.watched import load_champion, read_rows

Edit = Callable[[np.ndarray], Any]
MARCH = ("2024-03-01", "2024-04-01")
APRIL = ("2024-04-01", "2024-05-01")


@pytest.fixture
def check(world: Any, tmp_path: Any) -> Callable[..., list[Reason]]:
    """Return a function that logs months, edits the last one from a day on, and returns what is wrong."""

    def run(
        edits: dict[str, Edit], *, since: str = MARCH[0], months: tuple[tuple[str, str], ...] = (MARCH,)
    ) -> list[Reason]:
        for first, last in months:
            world.log(world.between(first, last))
        model = load_champion(world.settings, "trips", tmp_path / "bento")
        first, last = (datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in months[-1])
        found = read_rows(
            world.settings,
            model,
            world.problem,
            read_snapshot(world.snapshot),
            window=Window(first=first, last=last),
            as_of=last,
        )
        rows = found.window
        hit = np.array([f"{i:%Y-%m-%d}" >= since for i in rows.column("as_of").to_pylist()])
        before = {name: rows.column(name).to_numpy(zero_copy_only=False) for name in rows.column_names}
        for name, edit in edits.items():
            values = np.array(before[f"input_{name}"], dtype=object)
            values[hit] = edit({n.removeprefix("input_"): v[hit] for n, v in before.items()})
            rows = world.replace(rows, f"input_{name}", values.tolist())
        reasons = check_sanity(model, rows, found.past)
        assert {r.check for r in reasons} == set(CHECKS)
        return [r for r in reasons if not r.passed]

    return run


def only(reasons: list[Reason], check: str) -> Reason:
    assert [r.check for r in reasons] == [check], reasons
    assert reasons[0].severity == "critical"
    return reasons[0]


@pytest.mark.parametrize("months", [(MARCH,), (MARCH, APRIL)])
def test_sound_months_pass(check: Any, months: Any) -> None:
    assert check({}, months=months) == []


FAULTS: list[tuple[str, dict[str, Edit], str, list[str]]] = [
    ("celsius", {"temp_f": lambda v: (v["temp_f"].astype(float) - 32) / 1.8}, "units", ["temp_f", "°F → °C"]),
    (
        "rounded celsius",
        {"temp_f": lambda v: np.rint((v["temp_f"].astype(float) - 32) / 1.8)},
        "units",
        ["temp_f", "°F → °C"],
    ),
    ("metric wind", {"wind_mph": lambda v: v["wind_mph"].astype(float) * 1.609344}, "units", ["wind_mph", "km/h"]),
    (
        "percent",
        {"late_share": lambda v: v["late_share"].astype(float) * 100},
        "units",
        ["late_share", "fraction → percent"],
    ),
    ("seconds", {"delay": lambda v: v["delay"].astype(float) * 60}, "units", ["delay changed its unit"]),
    ("swap", {"temp_f": lambda v: v["wind_mph"], "wind_mph": lambda v: v["temp_f"]}, "swaps", ["temp_f", "wind_mph"]),
    (
        "renamed",
        {"carrier": lambda v: np.where(v["carrier"] == "UA", "U2", v["carrier"])},
        "categories",
        ["'U2'", "'UA' was renamed"],
    ),
    (
        "other codes",
        {"carrier": lambda v: [f"{c}L" for c in v["carrier"]]},
        "categories",
        ["carrier", "'UAL' is unknown to the model"],
    ),
    ("nulls", {"humidity_pct": lambda v: [None] * len(v["hour"])}, "nulls", ["humidity_pct", "100% null"]),
    (
        "stopped",
        {n: lambda v: [None] * len(v["hour"]) for n in ("temp_f", "humidity_pct", "wind_mph")},
        "feeds",
        ["weather", "stopped"],
    ),
    (
        "frozen",
        {n: lambda v, n=n: [v[n][0]] * len(v["hour"]) for n in ("temp_f", "humidity_pct", "wind_mph")},
        "frozen",
        ["feed weather", "repeats its last values"],
    ),
    (
        "infinite",
        {"delay": lambda v: np.where(np.arange(len(v["hour"])) % 5, v["delay"], np.inf)},
        "ranges",
        ["delay", "infinite"],
    ),
    (
        "marker",
        {"temp_f": lambda v: np.where(np.arange(len(v["hour"])) % 9, v["temp_f"], -9999.0)},
        "ranges",
        ["temp_f", "-9999"],
    ),
]


@pytest.mark.parametrize("since", ["2024-03-01", "2024-03-29"])
@pytest.mark.parametrize(("edits", "name", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_named(check: Any, edits: Any, name: str, words: list[str], since: str) -> None:
    reason = only(check(edits, since=since), name)
    assert all(word in reason.message for word in words), reason.message
    assert "from 2024-03" in reason.message
    assert "probably" in reason.message


def test_a_fault_that_goes_on_is_still_found(check: Any, world: Any) -> None:
    """The days before the window are broken too, and are not what it is compared with."""
    sound = world.between("2024-03-01", "2024-03-21")
    broken = world.between("2024-03-21", "2024-04-01")
    world.log(sound)
    world.log(world.replace(broken, "temp_f", (broken.column("temp_f").to_numpy() - 32) / 1.8))
    celsius = {"temp_f": lambda v: (v["temp_f"].astype(float) - 32) / 1.8}
    world.log(world.between(*APRIL))
    del sound
    from components.core.inference_log import read_predictions

    assert (
        read_predictions(
            world.settings.predictions,
            "trips",
            datetime.fromisoformat("2024-03-01T00:00:00+00:00"),
            datetime.fromisoformat("2024-05-01T00:00:00+00:00"),
        ).num_rows
        == 61 * 96
    )
    reasons = check(celsius, since=APRIL[0], months=(APRIL,))
    assert {r.check for r in reasons} == {"units"}


def test_after_a_blind_month_a_change_of_unit_may_be_a_season(check: Any) -> None:
    celsius = {"temp_f": lambda v: (v["temp_f"].astype(float) - 32) / 1.8}
    (reason,) = check(celsius, since=APRIL[0], months=(APRIL,))
    assert (reason.check, reason.severity) == ("units", "warning")
    assert "this may be a season" in reason.message


def test_one_bad_day_of_a_month_is_a_warning(check: Any) -> None:
    (reason,) = check({"humidity_pct": lambda v: [None] * len(v["hour"])}, since="2024-03-31")
    assert (reason.check, reason.severity) == ("nulls", "warning")


def test_a_new_level_is_a_warning(check: Any) -> None:
    rare = lambda v: np.where(np.arange(len(v["hour"])) % 40, v["carrier"], "NK")  # noqa: E731
    (reason,) = check({"carrier": rare})
    assert (reason.check, reason.severity) == ("categories", "warning")
    assert "'NK' is new" in reason.message


def test_an_absent_or_retyped_input_is_a_schema_fault(world: Any, tmp_path: Any) -> None:
    world.log(world.between(*MARCH))
    model = load_champion(world.settings, "trips", tmp_path / "bento")
    first, last = (datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in MARCH)
    found = read_rows(
        world.settings,
        model,
        world.problem,
        read_snapshot(world.snapshot),
        window=Window(first=first, last=last),
        as_of=last,
    )
    rows = found.window.drop_columns(["input_delay"])
    place = rows.column_names.index("input_temp_f")
    rows = rows.set_column(place, "input_temp_f", rows.column("input_temp_f").cast(pa.string()))
    broken = [r for r in check_sanity(model, rows, found.past) if not r.passed]
    assert [r.check for r in broken] == ["schema", "schema"]
    assert "delay is not in the log at all" in broken[0].message
    assert "temp_f is string in the log" in broken[1].message
