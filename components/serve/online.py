"""Reading features online, with the TTL that Feast does not enforce there.

Feast returns whatever was written last, however old (feast issue 1802, not to be fixed). Offline, the
point-in-time join drops a value when `event_timestamp + ttl < as_of` and never sees a later one. The same
rule is applied here, so that a model meets online what it was trained on: a value whose event timestamp
lies after `as_of` was not known then and counts as missing. SQLite keeps whole seconds only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.errors import FeatureError
from components.core.online_store import ENTITY_KEY_VERSION, online_store_config
from components.core.serving import ServingSpec
from components.core.typechecks import skip_typechecks
from components.serve.lookups import Lookup, RedisPipeline, Row, ViewByView
from components.serve.views import View, read_views


@dataclass(slots=True)
class Reading:
    """Values of all views for one request."""

    values: dict[str, Any] = field(default_factory=dict)
    ages: dict[str, float | None] = field(default_factory=dict)
    """View to the age of its row in seconds; None when it has none."""
    stale: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class OnlineReader:
    """Feast's online store for the views of one model, opened once per process."""

    def __init__(self, registry: Path, spec: ServingSpec, url: str) -> None:
        """Prepare views and store. Raises FeatureError when the registry does not fit, ConfigError for a bad URL."""
        skip_typechecks()
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value
        from feast.repo_config import RepoConfig

        project, self._views = read_views(registry, spec)
        self._config = RepoConfig(
            project=project,
            provider="local",
            registry=str(registry),
            online_store=online_store_config(url),
            entity_key_serialization_version=ENTITY_KEY_VERSION,
        )
        kind = self._config.online_store.type
        self._is_redis = kind == "redis"
        self.local = kind == "sqlite"
        """Whether a read stays on this machine, so that it need not leave the event loop."""
        self._lookup = self._open()
        self._key_message: Any = EntityKey
        self._value_message: Any = Value

    def _open(self) -> Lookup:
        from feast.infra.online_stores.helpers import get_online_store_from_config

        store = get_online_store_from_config(self._config.online_store)
        return RedisPipeline(store, self._config, self._views) if self._is_redis else ViewByView(store, self._config)

    def read(self, entities: Mapping[str, Any], as_of: float) -> Reading:
        """Read all views for one set of keys as known at `as_of` (Unix seconds).

        A null key has no row. Raises FeatureError when the store cannot be read; the next call reconnects.
        """
        asked = [view for view in self._views if all(entities[name] is not None for _, name, _ in view.keys)]
        keys = [self._key(view, entities) for view in asked]
        try:
            found = dict(zip((view.name for view in asked), self._lookup(asked, keys), strict=True))
        except Exception as error:
            # Feast's stores keep a broken connection, and PostgreSQL's leaks one per failure.
            self._lookup = self._open()
            raise FeatureError(
                "the online store cannot be read",
                measured=f"{type(error).__name__}: {error}",
                next_step="check DRIFTLINE_ONLINE_STORE_URL and run `driftline features materialize`",
            ) from error
        reading = Reading()
        for view in self._views:
            _judge(view, found.get(view.name, (None, None)), as_of, reading)
        return reading

    def _key(self, view: View, entities: Mapping[str, Any]) -> Any:
        return self._key_message(
            join_keys=[key for key, _, _ in view.keys],
            entity_values=[self._value_message(**{kind: entities[name]}) for _, name, kind in view.keys],
        )


def _judge(view: View, row: Row, as_of: float, reading: Reading) -> None:
    """Sort the features of one row into values, stale and missing."""
    instant, found = row
    values = {name: _plain(found.get(name)) for name in view.features} if found else {}
    age = None if instant is None else as_of - instant.timestamp()
    # Redis answers an unknown key with the epoch and no values.
    no_row = instant is not None and instant.timestamp() == 0 and all(value is None for value in values.values())
    if age is None or age < 0 or no_row:
        age, values = None, {}
    reading.ages[view.name] = age
    is_stale = age is not None and 0 < view.ttl_seconds < age
    for feature in view.features:
        value = values.get(feature)
        if value is None:
            reading.missing.append(feature)
        elif is_stale:
            reading.stale.append(feature)
        else:
            reading.values[feature] = value


def _plain(value: Any) -> Any:
    """Return the Python value of a Feast Value message; unset and NaN are None."""
    kind = value.WhichOneof("val") if value is not None else None
    if kind is None:
        return None
    plain = getattr(value, kind)
    return None if isinstance(plain, float) and math.isnan(plain) else plain
