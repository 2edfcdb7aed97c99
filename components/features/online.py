"""Writing one feature view to the online store, and remembering what its contents were made from."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from components.core.digests import json_digest, text_digest
from components.core.errors import DriftlineError, FeatureError
from components.core.settings import Settings
from components.core.tables import Snapshot
from components.features.definitions import view_spec
from components.features.locks import exclusive


def origin(settings: Settings, view: Any, snapshot: Snapshot) -> str:
    """Return the digest of what a view's online values derive from: its definition, the tables' SQL, the address."""
    address = urlsplit(settings.online_store_url)
    place = f"{address.scheme} {address.hostname} {address.port} {address.path}"
    return json_digest({"view": view_spec(view), "code": snapshot.code, "store": place})


def recorded_origin(store: Any, view: str) -> str:
    """Return the origin recorded for a view's online values; empty if there is none."""
    return store.registry.get_project_metadata(store.project, _metadata_key(view)) or ""


def record_origin(store: Any, view: str, value: str) -> None:
    """Record what a view's online values derive from."""
    store.registry.set_project_metadata(store.project, _metadata_key(view), value)


def clear(store: Any, view: Any) -> None:
    """Remove all online values of a view, so that none survives from another definition.

    Redis would keep them otherwise: it skips a row whose instant is not newer than the stored one.
    Raises FeatureError when the online store is out of reach.
    """
    update = store.provider.online_store.update
    with _store_errors(f"the online values of {view.name} cannot be cleared"):
        for delete, keep in (([view], []), ([], [view])):
            update(store.config, delete, keep, entities_to_delete=[], entities_to_keep=[], partial=True)


def write_interval(settings: Settings, store: Any, view: Any, begin: datetime, end: datetime) -> None:
    """Write the latest row of each key within [begin, end], then record the interval in the registry.

    Raises FeatureError when the online store cannot be written; nothing is recorded then.
    """
    url = settings.online_store_url
    # SQLite gives up on a busy database after five seconds; a queue does not.
    queue = exclusive(url, "writer") if url.startswith("sqlite") else nullcontext()
    with queue, _store_errors(f"materialization of {view.name} stopped at {begin.isoformat()}"):
        store.provider.materialize_single_feature_view(
            config=store.config,
            feature_view=view,
            start_date=begin,
            end_date=end,
            registry=store.registry,
            project=store.project,
            tqdm_builder=None,
        )
    store.registry.apply_materialization(view, store.project, begin, end)


@contextmanager
def _store_errors(what: str) -> Iterator[None]:
    """Turn whatever a store's driver raises into a FeatureError."""
    try:
        yield
    except DriftlineError:
        raise
    except Exception as error:
        raise FeatureError(
            what,
            measured=f"{type(error).__name__}: {error}",
            next_step="check DRIFTLINE_ONLINE_STORE_URL and the store, then start again: it resumes here",
        ) from error


def _metadata_key(view: str) -> str:
    # Feast's column holds 50 characters.
    return f"online_origin_{text_digest(view)[:32]}"
