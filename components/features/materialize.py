"""Materialize features to the online store: in time order, in chunks, resumed where the registry says it stopped.

SQLite and PostgreSQL let an older value overwrite a newer one, so no chunk is ever written after a later one.
"""

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from components.core.clock import parse_instant
from components.core.errors import ConfigError, FeatureError
from components.core.object_store import fetch, fetch_snapshot
from components.core.sections import Features
from components.core.settings import Settings
from components.core.tables import Snapshot, latest_path, read_snapshot
from components.core.usecase import load_use_case
from components.features.definitions import service_views
from components.features.locks import exclusive
from components.features.online import clear, origin, record_origin, recorded_origin, write_interval
from components.features.store import open_store

logger = logging.getLogger(__name__)

MAX_DAYS = 100_000


def materialize(
    settings: Settings, use_case: str, *, manifest: Path, config: Features, as_of: datetime, rebuild: bool = False
) -> dict[str, int]:
    """Bring the online store up to `as_of`; return view name to the number of chunks written.

    Views that are covered up to `as_of` or beyond are left alone, so a run with an older `as_of` pushes no value back.
    A view is written anew when its definition, the tables' SQL or the store's address changed, or with `rebuild`, which
    is for a store that lost its contents. Killed at any point and started again, it ends in the same online state.
    Raises FeatureError when a view's table or the online store cannot be read or written.
    """
    store = open_store(settings, use_case, manifest=manifest)
    snapshot = read_snapshot(manifest)
    _service, views = service_views(store, config.service)
    until = min(as_of, snapshot.as_of)
    written = {}
    for view in views:
        # One writer per view: another run must not write an older chunk between two of ours.
        with exclusive(settings.feature_registry_url, f"materialize-{use_case}-{view.name}"):
            written[view.name] = _materialize_view(
                settings, store, view.name, snapshot, until, config.chunk_days, rebuild=rebuild
            )
    return written


def materialize_latest(settings: Settings, use_case: str, as_of: str = "", *, rebuild: bool = False) -> list[str]:
    """Materialize from the newest snapshot of a use case; return one line per view.

    An empty `as_of` is the snapshot's. Raises ConfigError when there is no snapshot yet.
    """
    manifest = latest_path(settings.snapshots, use_case)
    if not fetch(settings, manifest, again=True):
        raise ConfigError(
            f"there is no snapshot of {use_case} yet", measured=str(manifest), next_step="run `driftline run training`"
        )
    snapshot = read_snapshot(manifest)
    fetch_snapshot(settings, snapshot)
    until = parse_instant(as_of) if as_of else snapshot.as_of
    config = load_use_case(settings.feature_repo / use_case).features
    written = materialize(settings, use_case, manifest=manifest, config=config, as_of=until, rebuild=rebuild)
    return [f"{view}: {count} chunks written" if count else f"{view}: up to date" for view, count in written.items()]


def chunks(start: datetime, end: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """Split [start, end] into consecutive intervals of at most `days`, oldest first; empty when start > end."""
    step = timedelta(days=days)
    found = [(start, min(start + step, end))] if start <= end else []
    while found and found[-1][1] < end:
        begin = found[-1][1]
        found.append((begin, min(begin + step, end)))
    return found


def first_instant(view: Any, snapshot: Snapshot, until: datetime) -> datetime:
    """Return where an empty online store starts: older rows are stale at `until` anyway.

    A view without TTL starts at its table's first row. Raises FeatureError when the snapshot has no row for the view.
    """
    table = view.batch_source.path
    partitions = snapshot.tables[table].partitions if table in snapshot.tables else []
    if not partitions:
        raise FeatureError(
            f"the snapshot has no rows for view {view.name}",
            measured=table,
            allowed=", ".join(sorted(snapshot.tables)),
            next_step="correct the source's path in features.py, then apply again",
        )
    first = min(partition.first for partition in partitions)
    return max(first, until - view.ttl) if view.ttl else first


def _materialize_view(
    settings: Settings, store: Any, name: str, snapshot: Snapshot, until: datetime, chunk_days: int, *, rebuild: bool
) -> int:
    # Read under the lock: another run may have moved on.
    view = store.registry.get_feature_view(name, store.project)
    covered = view.most_recent_end_time
    if covered is not None and until < covered:
        logger.info("%s: already materialized up to %s", name, covered.isoformat())
        return 0
    start = first_instant(view, snapshot, until)
    wanted = origin(settings, view, snapshot)
    anew = rebuild or recorded_origin(store, name) != wanted
    if anew:
        clear(store, view)
    if anew and covered is not None:
        # The registry cannot forget its intervals, so this is one chunk; killed, it starts over.
        pending = chunks(start, until, MAX_DAYS)
    elif covered is not None:
        pending = chunks(max(start, covered), until, chunk_days) if covered < until else []
    else:
        record_origin(store, name, wanted)
        pending = chunks(start, until, chunk_days)
    for begin, end in pending:
        write_interval(settings, store, view, begin, end)
        logger.info("%s: materialized %s to %s", name, begin.isoformat(), end.isoformat())
    record_origin(store, name, wanted)
    return len(pending)
