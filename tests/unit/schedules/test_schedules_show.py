"""What `driftline schedules` prints, and with which exit code it ends."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.schedules.model import Existing, Spec, Wanted
from pipelines.schedules.plan import plan
from pipelines.schedules.show import as_json_document, differs, summarize

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def spec(cron: str, **more: str) -> Spec:
    return Spec(use_case="flights", pipeline="flights-scoring", version="flights-scoring-1", cron=cron, **more)


def existing(name: str, known: Spec, *, enabled: bool = True) -> Existing:
    has = known.model_dump(mode="json", exclude={"use_case", "pipeline"})
    return Existing(id=f"id-{name}", name=name, enabled=enabled, created_at=NOW, digest=known.digest, has=has)


def test_a_plan_reads_like_one() -> None:
    daily, weekly = spec("0 15 3 * * *"), spec("0 0 0 * * MON", ends="2026-12-08T00:00:00+00:00")
    wanted = [
        Wanted(name="new", enabled=True, spec=weekly, arguments={}),
        Wanted(name="other", enabled=True, spec=daily, arguments={}),
        Wanted(name="quiet", enabled=False, spec=daily, arguments={}),
        Wanted(name="same", enabled=True, spec=daily, arguments={}),
    ]
    found = [existing("other", weekly), existing("quiet", daily), existing("same", daily), existing("stray", daily)]
    changes = plan(wanted, found, prune=False)
    assert differs(changes)
    assert [line for line, _ in summarize(changes, NOW)] == [
        "+ new                              create",
        "      flights-scoring-1, '0 0 0 * * MON' UTC",
        "      next: Mon 2026-11-30 00:00:00, Mon 2026-12-07 00:00:00",
        "± other                            replace",
        "      cron: 0 0 0 * * MON → 0 15 3 * * *",
        "      ends: 2026-12-08T00:00:00+00:00 → (none)",
        "      next: Thu 2026-11-26 03:15:00, Fri 2026-11-27 03:15:00, Sat 2026-11-28 03:15:00",
        "■ quiet                            disable",
        "  same                             unchanged",
        "      next: Thu 2026-11-26 03:15:00, Fri 2026-11-27 03:15:00, Sat 2026-11-28 03:15:00",
        "? stray                            undeclared  (no file declares it; --prune deletes it)",
        "      next: Thu 2026-11-26 03:15:00, Fri 2026-11-27 03:15:00, Sat 2026-11-28 03:15:00",
        "1 to create, 1 to replace, 1 to disable, 1 unchanged",
    ]
    document = json.loads(json.dumps(as_json_document(changes, NOW)))
    assert document["differs"] is True
    by_name = {schedule["name"]: schedule for schedule in document["schedules"]}
    assert by_name["other"]["differences"][0] == {"field": "cron", "old": "0 0 0 * * MON", "new": "0 15 3 * * *"}
    assert by_name["other"]["recurring_run"] == "id-other"
    assert by_name["quiet"]["next"] == []


def test_what_is_undeclared_is_no_difference_unless_it_is_to_be_pruned() -> None:
    found = [existing("stray", spec("@daily"))]
    assert not differs(plan([], found, prune=False))
    assert differs(plan([], found, prune=True))


@pytest.mark.parametrize(
    ("arguments", "host", "code", "says"),
    [
        (["plan"], "", 2, "DRIFTLINE_KFP_HOST"),
        (["plan"], "http://127.0.0.1:9", 1, "does not answer"),
        (["plan", "--dir", "absent"], "http://127.0.0.1:9", 2, "no schedule is declared"),
        (["apply"], "http://127.0.0.1:9", 2, "--yes"),
    ],
)
def test_exit_codes_where_there_is_no_cluster(
    tmp_path: Path, arguments: list[str], host: str, code: int, says: str
) -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "DRIFTLINE_KFP_HOST": host, "DRIFTLINE_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "schedules", *arguments],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code
    assert says in done.stderr
