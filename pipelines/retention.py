"""What may be deleted: everything that no champion, recent run or newest snapshot needs."""

import shutil
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.ledger.champions import list_champions
from components.core.ledger.engine import open_ledger
from components.core.model_signature import SUFFIX
from components.core.settings import Settings
from components.core.tables import read_snapshot
from pipelines.local import RECORD, RunRecord

SHADOW_DAYS = 7
"""A shadow's log serves one comparison, which `driftline shadow` makes of yesterday and today unless told otherwise."""


class Plan(BaseModel):
    """Paths to delete and what that frees."""

    model_config = ConfigDict(frozen=True)

    paths: list[Path]
    bytes: int


def plan(settings: Settings, *, keep: int) -> Plan:
    """List deletable runs, checkpoints, Bentos, snapshot files and shadow logs; running runs are never among them."""
    champions = list_champions(open_ledger(settings.ledger_url))
    runs = kept_runs(settings, keep=keep, champions={c.run_id for c in champions})
    folders = [p for p in _children(settings.runs) if p.name not in runs]
    checkpoints = [p for p in _children(settings.checkpoints) if p.name not in runs]
    archives = {f"{c.bento_digest}.tar" for c in champions}
    bentos = [p for p in _children(settings.bentos) if p.name.removesuffix(SUFFIX) not in archives]
    paths = [*folders, *checkpoints, *bentos, *unused_partitions(settings, runs), *old_shadow_files(settings)]
    return Plan(paths=paths, bytes=sum(_size(p) for p in paths))


def delete(found: Plan) -> None:
    """Delete what a plan lists."""
    for path in found.paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def kept_runs(settings: Settings, *, keep: int, champions: set[str]) -> set[str]:
    """Return the runs to keep: champions', running ones, and the newest of each pipeline and use case."""
    records = [RunRecord.model_validate_json(p.read_text("utf-8")) for p in settings.runs.glob(f"*/{RECORD}")]
    kept = set(champions) | {r.id for r in records if r.state == "running"}
    # Per pipeline: frequent scoring must not push trainings out.
    for kind in {(r.use_case, r.pipeline) for r in records}:
        same = [r for r in records if (r.use_case, r.pipeline) == kind]
        kept |= {r.id for r in sorted(same, key=lambda r: r.started_at, reverse=True)[:keep]}
    return kept


def unused_partitions(settings: Settings, runs: set[str]) -> list[Path]:
    """Return snapshot files that neither a kept run nor a use case's newest snapshot names."""
    manifests = [read_snapshot(p) for p in settings.snapshots.glob("*/latest.json")]
    for run in runs:
        manifests += [read_snapshot(p) for p in (settings.runs / run).glob("artifacts/*/ingest/snapshot")]
    used = {settings.snapshots / p.path for m in manifests for table in m.tables.values() for p in table.partitions}
    used |= {settings.snapshots / m.use_case / "manifests" / f"{m.digest}.json" for m in manifests}
    files = [*settings.snapshots.glob("*/*/*/*.parquet"), *settings.snapshots.glob("*/manifests/*.json")]
    return sorted(f for f in files if f not in used)


def old_shadow_files(settings: Settings) -> list[Path]:
    """Return files of a shadow's log that were written, or fetched, more than SHADOW_DAYS ago."""
    oldest = time.time() - SHADOW_DAYS * 86_400
    # By their age and not by their day, which is that of the instant that was asked about.
    return sorted(p for p in settings.shadow_predictions.glob("*/*/*.parquet") if p.stat().st_mtime < oldest)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
