"""Which regrouping of days holds the level of a drift test when neighbouring days are alike?

    python benchmarks/drift_correlated_days.py [--windows 300]

20 columns of 200 rows a day; the days' means are independent first-order autoregressions with a standard deviation of
0.3 of that within a day. Reference days are followed by a window of 7 or 28 days from the same process, so every alarm
is false. Compared: single days (exact for independent days), blocks of 7 days, contiguous runs (all circular shifts),
and ours: single days with each column's null widened by its serial correlation. Last rows: power, with three columns
moved by 0.5 or 1 standard deviation. A p-value from runs cannot fall below 1 / days, from blocks 1 / choices.
"""

import argparse
import math
import sys
import time

import numpy as np
from scipy.special import ndtr, ndtri

from components.core.profile import ColumnProfile, Counts
from components.monitor.drift import drift_test, js_distance

SEED = 20_131_203
TARGET, BAR = 0.01, 0.02
COLUMNS, ROWS, EFFECT, MOVED = 20, 200, 0.3, 3
DEALINGS = 499
EDGES = ndtri(np.arange(1, 32) / 32) * math.hypot(1, EFFECT)
SIZES = ((91, 28), (91, 7), (364, 7))
CELLS = ((0.0, 0.0), (0.3, 0.0), (0.6, 0.0), (0.8, 0.0), (0.6, 0.5), (0.6, 1.0))
NULLS = ("days", "blocks", "runs", "ours")


def simulate(generator: np.random.Generator, days: int, window: int, phi: float, shift: float) -> Counts:
    """Return counts of all columns, int64 [columns, days + window, 34]; the window comes last."""
    total = days + window
    effect = generator.standard_normal((total, COLUMNS))
    for day in range(1, total):
        effect[day] = phi * effect[day - 1] + math.sqrt(1 - phi**2) * effect[day]
    effect *= EFFECT
    effect[days:, :MOVED] += shift
    below = ndtr(EDGES - effect[:, :, None])
    ends = np.ones((total, COLUMNS, 1))
    share = np.diff(np.concatenate([0 * ends, below, ends], axis=2), axis=2)
    rows = generator.poisson(ROWS, total)
    counted = np.stack([generator.multinomial(rows, share[:, column]) for column in range(COLUMNS)])
    return np.concatenate([counted, np.zeros((COLUMNS, total, 2), dtype=np.int64)], axis=2)


def profiles(reference: Counts) -> list[ColumnProfile]:
    days = [str(np.datetime64("2024-01-01") + day) for day in range(reference.shape[1])]
    return [
        ColumnProfile(
            name=f"x{number:02d}",
            kind="category",
            levels=[f"L{level}" for level in range(32)],
            days=days,
            counts=table.tolist(),
            distinct=[0] * len(days),
        )
        for number, table in enumerate(reference)
    ]


def choices(null: str, generator: np.random.Generator, days: int, window: int) -> np.ndarray:
    """Return which days form a window under a null, 0 or 1 in float64 [n, days + window], first the real one."""
    total = days + window
    real = np.arange(total) >= days
    if null == "runs":
        return np.stack([np.roll(real, shift) for shift in range(total)]).astype(np.float64)
    block = 1 if null == "days" else 7
    number = (total - 1 - np.arange(total)) // block
    taken = math.ceil(window / block)
    order = np.argsort(generator.random((DEALINGS, int(number[0]) + 1)), axis=1)
    return np.concatenate([real[None], (order < taken)[:, number]]).astype(np.float64)


def p_value(table: Counts, chosen: np.ndarray) -> float:
    """Return the family-wise p-value of a plain permutation test."""
    largest = np.full(len(chosen), -np.inf)
    for column in table.astype(np.float64):
        taken = chosen @ column
        score = js_distance(taken, column.sum(axis=0) - taken)
        largest = np.maximum(largest, (score - score.mean()) / score.std())
    return float((largest >= largest[0] - 1e-9).mean())


def alarms(days: int, window: int, phi: float, shift: float, windows: int) -> dict[str, float]:
    """Return the share of windows called drifted under each null."""
    generator = np.random.default_rng([SEED, days, window, int(10 * phi), int(10 * shift)])
    found = dict.fromkeys(NULLS, 0)
    for number in range(windows):
        table = simulate(generator, days, window, phi, shift)
        for null in NULLS[:-1]:
            found[null] += p_value(table, choices(null, generator, days, window)) <= TARGET
        columns = profiles(table[:, :days])
        counts = {column.name: own for column, own in zip(columns, table[:, days:], strict=True)}
        found["ours"] += drift_test(columns, counts, significance=TARGET, resamples=DEALINGS, seed=number).drifted
    return {null: count / windows for null, count in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=300)
    given = parser.parse_args()
    started, worst = time.process_time(), 0.0
    print(f"seed {SEED}; {given.windows} windows per row, target {100 * TARGET:.0f} %")
    print(f"{'windows called drifted, percent':48}" + "".join(f"{null:>8}" for null in NULLS))
    for days, window in SIZES:
        for phi, shift in CELLS:
            found = alarms(days, window, phi, shift, given.windows)
            what = f"moved by {shift}" if shift else "nothing moved"
            title = f"{days} + {window} days, correlation {phi}, {what}"
            print(f"{title:48}" + "".join(f"{100 * found[null]:8.1f}" for null in NULLS), flush=True)
            worst = worst if shift else max(worst, found["ours"])
    print(f"most false alarms {100 * worst:.1f} %; {time.process_time() - started:.0f} CPU-s")
    # The bar, and three standard errors of what so few windows can tell.
    return int(worst > BAR + 3 * math.sqrt(BAR / given.windows))


if __name__ == "__main__":
    sys.exit(main())
