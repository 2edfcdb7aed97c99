"""Judge a snapshot: every check of every table, one verdict, one page; never raises for bad data."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.core.errors import DataError
from components.core.object_store import fetch_snapshot
from components.core.sections import Expectations
from components.core.settings import Settings
from components.core.storage import write_text
from components.core.tables import Snapshot, read_snapshot, read_table
from components.core.verdict import Verdict, write_verdict
from components.validate import integrity
from components.validate.checks import run_expectations
from components.validate.findings import Finding
from components.validate.page import render
from components.validate.suite import Expectation, parse_suite

log = logging.getLogger(__name__)


def judge_fetched(
    settings: Settings,
    use_case: str,
    manifest: Path,
    suite: dict[str, Any],
    config: Expectations,
    *,
    verdict: Path,
    page: Path,
) -> dict[str, float]:
    """Make a snapshot's files local, then judge it. Raises what `judge` raises, and StorageFailed."""
    fetch_snapshot(settings, read_snapshot(manifest))
    return judge(use_case, manifest, suite, config, settings.snapshots, verdict=verdict, page=page)


def judge(
    use_case: str, manifest: Path, suite: dict[str, Any], config: Expectations, root: Path, *, verdict: Path, page: Path
) -> dict[str, float]:
    """Write the verdict and the page of a snapshot and return the step's metrics.

    `manifest` is the snapshot's file, `root` the folder that its partitions lie under.
    Raises ConfigError for a suite that cannot be understood and DataError for another use case's snapshot;
    any finding about the data, however bad, ends up in the verdict instead.
    """
    snapshot = read_snapshot(manifest)
    if snapshot.use_case != use_case:
        raise DataError("the snapshot belongs to another use case", measured=snapshot.use_case, allowed=use_case)
    expectations = parse_suite(suite, snapshot.tables)
    findings = [
        finding
        for table in sorted(snapshot.tables)
        for finding in check_table(root, snapshot, table, expectations.get(table, []), config.examples)
    ]
    decided = decide(snapshot, findings)
    write_verdict(verdict, decided)
    write_text(page, render(snapshot, decided, findings))
    metrics = summarize(snapshot, findings)
    log.info("validate: %s, %s", decided.decision, metrics)
    return metrics


def check_table(
    root: Path, snapshot: Snapshot, table: str, expectations: list[Expectation], examples: int
) -> list[Finding]:
    """Return the findings of one table: built-in checks first, then its expectations.

    Only one table is in memory at a time; files that are not intact are never read.
    """
    manifest = snapshot.tables[table]
    findings = [
        integrity.check_files(root, table, manifest),
        integrity.check_has_rows(table, manifest),
        integrity.check_months(table, manifest),
    ]
    if all(f.passed for f in findings[:2]):
        rows = read_table(root, snapshot, table)
        findings += integrity.check_known(table, rows, snapshot.as_of, manifest.keys, examples)
        findings += integrity.check_filled(table, rows)
        if integrity.LABEL_TIME in rows.column_names:
            findings += integrity.check_predictions(table, rows, manifest.keys, examples)
    else:
        rows = pa.table({name: pa.array([], pa.string()) for name in manifest.columns})
    return findings + run_expectations(table, rows, expectations, keys=manifest.keys, examples=examples)


def decide(snapshot: Snapshot, findings: list[Finding]) -> Verdict:
    """Reject if any critical check failed; warnings are only told."""
    rejected = any(not f.passed and f.severity == "critical" for f in findings)
    return Verdict(
        gate="validate",
        subject=snapshot.digest,
        decision="reject" if rejected else "pass",
        reasons=[f.to_reason() for f in findings],
        evidence={
            "tables": {name: {"rows": t.rows, "months": len(t.partitions)} for name, t in snapshot.tables.items()},
            "failures": [f.model_dump(mode="json", exclude_none=True) for f in findings if not f.passed],
        },
    )


def summarize(snapshot: Snapshot, findings: list[Finding]) -> dict[str, float]:
    """Return counts of rows and of failed checks by severity."""
    failed = [f.severity for f in findings if not f.passed]
    return {
        "rows": float(sum(t.rows for t in snapshot.tables.values())),
        "checks": float(len(findings)),
        "failed_critical": float(failed.count("critical")),
        "failed_warning": float(failed.count("warning")),
        "failed_info": float(failed.count("info")),
    }
