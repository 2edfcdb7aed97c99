"""What `driftline clean` deletes of a shadow's log: what is older than a week, and nothing of what was answered."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from components.core.ledger.engine import migrate
from components.core.settings import Settings

ROOT = Path(__file__).parents[3]
DAY_SECONDS = 86_400


def clean(settings: Settings, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "clean", "--json", *words],
        cwd=ROOT,
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        check=False,
    )


def written(root: Path, day: str, name: str, days_ago: float) -> Path:
    path = root / "rides" / day / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    then = time.time() - days_ago * DAY_SECONDS
    os.utime(path, (then, then))
    return path


def test_a_shadows_log_is_deleted_a_week_after_it_was_written(settings: Settings) -> None:
    migrate(settings.ledger_url)
    shadow, answered = settings.shadow_predictions, settings.predictions
    # The day is that of the question: one asked today about 2013 is new, one asked in May about May is not.
    old = [written(shadow, "2013-03-31", "a-0.parquet", 7.1), written(shadow, "2026-01-02", "b-0.parquet", 300)]
    new = [written(shadow, "2013-03-31", "c-0.parquet", 0), written(shadow, "2026-01-02", "d-0.parquet", 6.9)]
    kept = [written(answered, "2013-03-31", "e-0.parquet", 300)]
    planned = clean(settings)
    assert planned.returncode == 4, planned.stderr
    assert json.loads(planned.stdout) == {"delete": sorted(map(str, old)), "bytes": 8, "deleted": False}
    assert all(path.exists() for path in [*old, *new, *kept])
    assert clean(settings, "--yes").returncode == 0
    assert [path.exists() for path in [*old, *new, *kept]] == [False, False, True, True, True]
    assert clean(settings).returncode == 0
