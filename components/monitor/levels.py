"""Categories that the model does not know: renamed, exchanged with another column's, or new."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from components.core.bundle import Encoding
from components.core.metrics import Floats, Ints
from components.monitor.finding import Finding
from components.monitor.history import History

MIN_RENAMED_SHARE = 0.01
"""Rare levels come and go by themselves: a destination that is served in summer."""
MIN_EXPECTED_ROWS = 20
RENAMED_RATIO = 2.0
UNKNOWN_MARGIN = 0.2
"""A period has too many unknown levels when their share is this much above that of every period compared with."""
NEW_LEVEL_SHARE = 0.01
SWAPPED_SHARE = 0.8


def find_levels(history: History, encoding: Encoding) -> list[Finding]:
    """Find swapped columns, renamed levels, bursts of unknown levels, and (not fatal) levels that are new."""
    known = {
        c.name: set(c.categories)
        for c in encoding.columns
        if c.kind == "category" and c.name in history.periods.categories
    }
    swaps = _swapped(history, known)
    taken = {name for finding in swaps for name in finding.columns}
    findings = list(swaps)
    for name, levels in known.items():
        if name not in taken:
            findings += _unknown(history, name, levels)
    return findings


def _swapped(history: History, known: dict[str, set[str]]) -> list[Finding]:
    findings = []
    for a, b in combinations(known, 2):
        mine = [_share_in(history, column, known[column]) for column in (a, b)]
        other = [_share_in(history, a, known[b]), _share_in(history, b, known[a])]
        hit = [
            p
            for p in history.judged
            if all(o[p] >= SWAPPED_SHARE and m[p] < 1 - SWAPPED_SHARE for o, m in zip(other, mine, strict=True))
        ]
        if hit:
            message = (
                f"{a} and {b} are swapped: {other[0][hit].min():.0%} of the values of {a} are known as {b} and "
                f"{other[1][hit].min():.0%} the other way round; probably two columns were exchanged"
            )
            findings.append(Finding("swaps", (a, b), tuple(hit), message, f"{a} ↔ {b}"))
    return findings


def _share_in(history: History, name: str, levels: set[str]) -> Floats:
    """Return the share of known values of each period that are among some levels."""
    column = history.periods.categories[name]
    member = np.array([level in levels for level in column.levels], dtype=bool)
    return np.asarray(column.counts[:, member].sum(axis=1) / np.maximum(1, column.counts.sum(axis=1)))


def _unknown(history: History, name: str, known: set[str]) -> list[Finding]:
    unknown = _unknown_levels(history, name, known)
    renamed: dict[str, Renamed] = {}
    for new in unknown:
        taken = {found.old for found in renamed.values()}
        found = _renamed_from(history, name, new, known - taken)
        if found is not None:
            renamed[new] = found
    findings = [_as_renamed(name, renamed)] if renamed else []
    findings += _burst(history, name, known, set(renamed))
    if findings:
        return findings
    column = history.periods.categories[name]
    rows = max(1, column.counts[history.window].sum())
    for new in unknown:
        arrivals = column.counts[:, column.levels.index(new)]
        share = float(arrivals[history.window].sum() / rows)
        if share >= NEW_LEVEL_SHARE:
            hit = tuple(p for p in history.judged if arrivals[p])
            message = f"{name}: {new!r} is new, {share:.1%} of the rows; the model treats it as missing"
            findings.append(
                Finding("categories", (name,), hit, message, round(share, 4), NEW_LEVEL_SHARE, is_fatal=False)
            )
    return findings


def _as_renamed(name: str, renamed: dict[str, "Renamed"]) -> Finding:
    told = [
        f"{new!r} is unknown to the model and holds {found.now:.1%} of the rows since {found.old!r} "
        f"({found.before:.1%} before) has vanished"
        for new, found in renamed.items()
    ]
    message = f"{name}: {'; '.join(told)}; probably {', '.join(repr(f.old) for f in renamed.values())} was renamed"
    periods = tuple(sorted({p for found in renamed.values() for p in found.periods}))
    measured = {new: round(found.now, 4) for new, found in renamed.items()}
    return Finding("categories", (name,), periods, message, measured, "levels that the model knows")


class Renamed(NamedTuple):
    """The level that a new one replaced."""

    old: str
    periods: tuple[int, ...]
    now: float
    """Share of the new level."""
    before: float
    """Share of the old level."""


def _unknown_levels(history: History, name: str, known: set[str]) -> list[str]:
    column = history.periods.categories[name]
    counts = column.counts[history.window].sum(axis=0)
    return [level for level, count in zip(column.levels, counts, strict=True) if count and level not in known]


def _renamed_from(history: History, name: str, new: str, known: set[str]) -> Renamed | None:
    """Return the known level that vanished when a new one came, of about the same share."""
    column = history.periods.categories[name]
    total = np.maximum(1, column.counts.sum(axis=1))
    arrivals = column.counts[:, column.levels.index(new)]
    hit = [p for p in history.judged if arrivals[p]]
    if not hit:
        return None
    # On its first day the old name may still have been used.
    later = [p for p in range(hit[0], len(total)) if p > hit[0]] or hit
    now = float(arrivals[later].sum() / total[later].sum())
    base = history.baseline(hit[0], set(hit))
    if now < MIN_RENAMED_SHARE or not len(base):
        return None
    best: tuple[float, str, float] | None = None
    for code, old in enumerate(column.levels):
        if old not in known:
            continue
        before = float(column.counts[base, code].sum() / total[base].sum())
        is_gone = not column.counts[later, code].any() and before * total[later].sum() >= MIN_EXPECTED_ROWS
        ratio = max(now, before) / max(min(now, before), 1e-12)
        if is_gone and ratio <= RENAMED_RATIO and (best is None or ratio < best[0]):
            best = ratio, old, before
    return None if best is None else Renamed(best[1], tuple(hit), now, best[2])


def _burst(history: History, name: str, known: set[str], explained: set[str]) -> list[Finding]:
    share = 1 - _share_in(history, name, known | explained)
    share[history.periods.categories[name].counts.sum(axis=1) == 0] = 0
    broken: set[int] = set()
    limit = UNKNOWN_MARGIN
    for period in history.judged:
        base: Ints = history.baseline(period, broken)
        limit = float(share[base].max(initial=0)) + UNKNOWN_MARGIN
        if share[period] > limit:
            broken.add(period)
    if not broken:
        return []
    hit = tuple(sorted(broken))
    worst = float(share[list(hit)].max())
    counts = history.periods.categories[name].counts[list(hit)].sum(axis=0)
    examples = [
        level
        for count, level in sorted(zip(counts, history.periods.categories[name].levels, strict=True), reverse=True)
        if count and level not in known
    ][:3]
    message = (
        f"{name}: up to {worst:.0%} of the values are unknown to the model, at most {limit - UNKNOWN_MARGIN:.0%} "
        f"before, such as {', '.join(map(repr, examples))}; probably the codes come from another list"
    )
    return [Finding("categories", (name,), hit, message, round(worst, 4), round(limit, 4))]
