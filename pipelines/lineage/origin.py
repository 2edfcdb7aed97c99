"""From a model's card to where it came from: registry, features, rows, data and code."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.engine import make_url

from components.core.bundle import ModelCard
from components.core.digests import file_digest
from components.core.object_store import fetch, fetch_snapshot
from components.core.tables import Snapshot, read_snapshot
from components.core.training_set import REGISTRY, ROWS, read_manifest
from pipelines.lineage.link import Link, broken, compared, unverified, verified
from pipelines.lineage.model import Subject
from pipelines.reports import artifact

NAMES = ("mlflow", "features", "training_set", "snapshot", "code")
Check = tuple[str, object, object]
"""What is compared, what is recorded and what was found."""


def origin_links(subject: Subject) -> list[Link]:
    """Return the links that start from the model's card."""
    card = subject.card
    if card is None:
        return [unverified(name, "", "unknown: the model's card is gone with its files") for name in NAMES]
    checks = (mlflow_link, features_link, training_set_link, snapshot_link, code_link)
    return [check(subject, card) for check in checks]


def mlflow_link(subject: Subject, card: ModelCard) -> Link:
    """Read the version's tags in the embedded database, in SQL: importing MLflow costs 3.5 CPU-seconds."""
    value = f"{card.use_case} version {card.version}, run {card.mlflow_run}"
    url = make_url(subject.settings.mlflow_uri)
    if not url.drivername.startswith("sqlite"):
        return unverified("mlflow", value, f"kept by {url.render_as_string(hide_password=True)}, which is not asked")
    path = Path(url.database or "")
    key = (card.use_case, card.version)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            runs = connection.execute(
                "SELECT run_id FROM model_versions WHERE name = ? AND version = ?", key
            ).fetchall()
            tags = dict(
                connection.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", key)
            )
    except sqlite3.Error as error:
        return unverified("mlflow", value, f"{path} cannot be read: {error}")
    if not runs:
        return broken("mlflow", value, "the model registry does not have this version")
    checks: list[Check] = [
        ("run", card.mlflow_run, runs[0][0]),
        ("driftline.model", card.model, tags.get("driftline.model")),
        ("driftline.training_set", card.training_set, tags.get("driftline.training_set")),
        ("driftline.snapshot", card.snapshot, tags.get("driftline.snapshot")),
        ("driftline.code", card.code, tags.get("driftline.code")),
        ("driftline.run", subject.run_id, tags.get("driftline.run")),
    ]
    if subject.bento:
        checks.append(("driftline.bento", subject.bento.digest, tags.get("driftline.bento")))
    return _agreed("mlflow", value, checks, "run and tags of the version", tags=tags)


def features_link(subject: Subject, card: ModelCard) -> Link:
    """Compare the registry inside the Bento, byte by byte, with the one the training set was joined by."""
    value = f"{card.service}, definitions {card.registry}"
    rows = artifact(subject.record, "features", "training_set") if subject.record else None
    if rows is None:
        return unverified("features", value, "the training set is not on this machine")
    served = subject.folder / REGISTRY if subject.folder else None
    try:
        made = read_manifest(rows)
        registry = file_digest(rows / REGISTRY)
        shipped = file_digest(served) if served and served.is_file() else None
    except (OSError, ValidationError) as error:
        return broken("features", value, f"the training set cannot be read: {error}")
    checks: list[Check] = [("service", card.service, made.service), ("definitions", card.registry, made.registry)]
    if any(column.view for column in made.inputs):
        if shipped is None:
            return unverified("features", value, "the registry of the Bento is gone with it")
        checks.append(("registry.pb", registry, shipped))
    return _agreed("features", value, checks, "the served registry is the training set's", registry=registry)


def training_set_link(subject: Subject, card: ModelCard) -> Link:
    """Compute the digest of the training rows again."""
    rows = artifact(subject.record, "features", "training_set") if subject.record else None
    if rows is None or not (rows / ROWS).is_file():
        return unverified("training_set", card.training_set, "its rows are not on this machine")
    note = f"{card.rows} labelled rows from {card.first.date()} to {card.last.date()}"
    return compared("training_set", card.training_set, file_digest(rows / ROWS), note, path=str(rows / ROWS))


def snapshot_link(subject: Subject, card: ModelCard) -> Link:
    """Compute the digests of the manifest and of every partition it lists again."""
    root = subject.settings.snapshots
    path = root / card.use_case / "manifests" / f"{card.snapshot}.json"
    if not fetch(subject.settings, path):
        return unverified("snapshot", card.snapshot, f"{path} is not on this machine")
    try:
        snapshot = read_snapshot(path)
    except ValidationError as error:
        return broken("snapshot", card.snapshot, f"{path} is damaged: {error.error_count()} errors")
    fetch_snapshot(subject.settings, snapshot)
    details = {
        "manifest": str(path),
        "as_of": snapshot.as_of.isoformat(),
        "sql_and_sources": snapshot.code,
        "sources": snapshot.sources,
        "tables": {
            name: [partition.model_dump(mode="json") for partition in table.partitions]
            for name, table in snapshot.tables.items()
        },
    }
    wrong = _damaged(root, snapshot)
    if wrong:
        return broken("snapshot", card.snapshot, f"partitions are gone or changed: {', '.join(wrong[:3])}", **details)
    count = sum(len(table.partitions) for table in snapshot.tables.values())
    note = f"{len(snapshot.tables)} tables in {count} partitions, from {len(snapshot.sources)} sources"
    return compared("snapshot", card.snapshot, snapshot.digest, note, **details)


def _damaged(root: Path, snapshot: Snapshot) -> list[str]:
    partitions = [p for table in snapshot.tables.values() for p in table.partitions]
    return [p.path for p in partitions if not (root / p.path).is_file() or file_digest(root / p.path) != p.sha256]


def code_link(subject: Subject, card: ModelCard) -> Link:  # noqa: ARG001 - one signature for all
    """Ask Git whether this checkout has the commit."""
    git = shutil.which("git")
    if not card.code:
        return unverified("code", "", "the model was trained outside a checkout")
    if git is None:
        return unverified("code", card.code, "git is not installed")
    command = [git, "-C", str(Path(__file__).parent), "log", "-1", "--format=%H %cI %s", card.code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words, a commit
    if answer.returncode:
        return unverified("code", card.code, "this checkout does not have the commit")
    found, when, subject_line = answer.stdout.strip().split(" ", 2)
    return compared("code", card.code, found, f"{when} {subject_line}")


def _agreed(name: str, value: str, checks: list[Check], note: str, **details: object) -> Link:
    """Return a broken link that names every check whose two sides differ, or a verified one."""
    wrong = [f"{what} is {found}, not {recorded}" for what, recorded, found in checks if recorded != found]
    return broken(name, value, "; ".join(wrong), **details) if wrong else verified(name, value, note, **details)
