"""CPU and memory of one drift decision over 300,000 rows and 25 columns: ours against Evidently's preset.

    python benchmarks/drift_decision.py [--rows 300000]

Ours: from raw Arrow rows and `profile.json` (read the profile, bin the window, test with the shipped 1,999 dealings).
Evidently: `DataDriftPreset` on the same window and the reference rows, as DataFrames. Each runs in a process of its
own; CPU is `process_time` after imports and reading of the rows, memory is VmHWM, the whole process's peak. One window
over 30 days and one within a day. Bars: at least 50 times less CPU, and a lower peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drift_false_alarms import draw

from components.core.profile import PREDICTION, Profile, utc_days, write_profile
from components.core.sections import Monitor
from components.core.settings import QUIET
from components.train.profiling import profile_column

SEED = 20_131_202
BAR = 50.0
DAY_MICROS = 86_400_000_000
START = 1_704_067_200_000_000
FRAME = """
    import json, sys, time
    from pathlib import Path

    def peak_mb():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    folder = Path(sys.argv[1])
"""
OURS = """
    import pyarrow.parquet as pq

    from components.core.profile import read_profile
    from components.core.sections import Monitor
    from components.monitor.drift import drift_test
    from components.monitor.window import window_counts

    rows = pq.read_table(folder / "window.parquet")
    config = Monitor()
    before, started = peak_mb(), time.process_time()
    profile = read_profile(folder)
    _, counts = window_counts(profile.columns, rows, prefix="")
    test = drift_test(
        profile.columns, counts, significance=config.significance, resamples=config.resamples, seed=config.seed
    )
    cpu = time.process_time() - started
    answer = f"{test.blocks} dealt, p = {test.p_value:.3f}, drifted: {test.drifted}"
"""
PRESET = """
    import pyarrow.parquet as pq
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = [pq.read_table(folder / name).drop_columns("as_of").to_pandas() for name in
              ("window.parquet", "reference.parquet")]
    numbers = [name for name in frames[0] if name.startswith("x")]
    levels = [name for name in frames[0] if name not in numbers]
    before, started = peak_mb(), time.process_time()
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=levels)
    current, reference = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    found = Report([DataDriftPreset()]).run(current, reference).dict()
    cpu = time.process_time() - started
    answer = str(next(m["value"] for m in found["metrics"] if "DriftedColumnsCount" in str(m)))
"""
TAIL = """
    print(json.dumps({"cpu": cpu, "before": before, "peak": peak_mb(), "answer": answer}))
"""


def write_side(generator: np.random.Generator, path: Path, rows: int, days: int) -> pa.Table:
    """Write rows spread over some days."""
    table = draw(generator, rows).drop_columns("as_of")
    instants = START + np.sort(generator.integers(0, days * DAY_MICROS, rows))
    table = table.append_column("as_of", pa.array(instants).cast(pa.timestamp("us", "UTC")))
    pq.write_table(table, path)
    return table


def write_reference(folder: Path, table: pa.Table) -> None:
    """Write the profile of the reference rows."""
    days, day = utc_days(table.column("as_of"))
    names = [name for name in table.column_names if name != "as_of"]
    columns = [
        profile_column(name, "number" if name.startswith("x") else "category", table.column(name), days, day)
        for name in names
    ]
    prediction = columns[0].model_copy(update={"name": PREDICTION})
    write_profile(
        folder, Profile(use_case="simulated", model="", rows=table.num_rows, columns=columns, prediction=prediction)
    )


def measure(program: str, folder: Path) -> dict[str, float]:
    """Run one side in a process of its own."""
    code = "".join(textwrap.dedent(part) for part in (FRAME, program, TAIL))
    environment = os.environ | QUIET | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    given = parser.parse_args()
    print(f"{given.rows:,} rows a side, 25 columns, {Monitor().resamples} dealings, seed {SEED}")
    missed = False
    for days in (30, 1):
        with tempfile.TemporaryDirectory(prefix="driftline-drift-") as name:
            folder, generator = Path(name), np.random.default_rng([SEED, days])
            write_reference(folder, write_side(generator, folder / "reference.parquet", given.rows, days))
            write_side(generator, folder / "window.parquet", given.rows, days)
            sides = {"ours": measure(OURS, folder), "Evidently": measure(PRESET, folder)}
        for title, found in sides.items():
            print(
                f"{days:2} days  {title:10} {found['cpu']:7.2f} CPU-s  peak {found['peak']:6.0f} MB"
                f" ({found['before']:.0f} MB before)  {found['answer']}"
            )
        cpu = sides["Evidently"]["cpu"] / sides["ours"]["cpu"]
        memory = sides["ours"]["peak"] / sides["Evidently"]["peak"]
        print(f"{days:2} days  {cpu:.0f} times less CPU (bar {BAR:.0f}), {memory:.2f} of the peak (bar below 1)")
        missed |= cpu < BAR or memory >= 1
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
