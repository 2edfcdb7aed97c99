"""Reading the online store: one pass per feature view, with the TTL that Feast does not enforce online.

Feast returns whatever was written last, however old (feast issue 1802, not to be fixed). Offline, the
point-in-time join drops a value when `event_timestamp + ttl < as_of` and never sees a later one. The same
rule is applied here, so that a model meets online what it was trained on: a value whose event timestamp
lies after `as_of` was not known then and counts as missing. SQLite keeps whole seconds only.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.errors import FeatureError
from components.core.online_store import ENTITY_KEY_VERSION, online_store_config
from components.core.serving import ServingSpec
from components.core.training_set import Input

_KEY_FIELDS = {"STRING": "string_val", "INT32": "int32_val", "INT64": "int64_val"}


@dataclass(slots=True)
class Reading:
    """Values of all views for one request."""

    values: dict[str, Any]
    ages: dict[str, float | None] = field(default_factory=dict)
    """View to the age of its row in seconds."""
    stale: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _View:
    name: str
    table: Any
    keys: list[tuple[str, str, str]]
    """Join key, its name in a request, and the field of Feast's Value message that carries it."""
    features: list[str]
    ttl_seconds: int


class OnlineReader:
    """Feast's online store for the views of one model, opened once per process."""

    def __init__(self, registry: Path, spec: ServingSpec, url: str) -> None:
        """Prepare tables and key layouts. Raises FeatureError when the registry lacks a view or feature."""
        from feast import FeatureView
        from feast.infra.online_stores.helpers import get_online_store_from_config
        from feast.protos.feast.core.Registry_pb2 import Registry
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value
        from feast.repo_config import RepoConfig

        content = Registry.FromString(registry.read_bytes())
        tables = {proto.spec.name: FeatureView.from_proto(proto) for proto in content.feature_views}
        renamed = {
            projection.feature_view_name: dict(projection.join_key_map)
            for service in content.feature_services
            for projection in service.spec.features
        }
        projects = {proto.spec.project for proto in content.feature_views if proto.spec.name in spec.views}
        self._views = [_view(name, inputs, tables, renamed.get(name, {}), spec) for name, inputs in spec.views.items()]
        if len(projects) != 1:
            raise FeatureError("the views of a service must belong to one project", measured=sorted(projects))
        self._config = RepoConfig(
            project=projects.pop(),
            provider="local",
            registry=str(registry),
            online_store=online_store_config(url),
            entity_key_serialization_version=ENTITY_KEY_VERSION,
        )
        self._open: Callable[[], Any] = lambda: get_online_store_from_config(self._config.online_store)
        self._store = self._open()
        self._key_message: Any = EntityKey
        self._value_message: Any = Value
        self.local = self._config.online_store.type == "sqlite"
        """Whether a read stays on this machine, so that it need not leave the event loop."""

    def read(self, entities: Mapping[str, str | int | None], as_of: float) -> Reading:
        """Read all views for one set of keys as known at `as_of` (Unix seconds).

        A null key has no row. Raises FeatureError when the store cannot be read; the next call reconnects.
        """
        reading = Reading(values={})
        for view in self._views:
            instant, values = self._read_view(view, entities)
            age = None if instant is None else as_of - instant.timestamp()
            if age is not None and age < 0:
                age, values = None, None
            reading.ages[view.name] = age
            stale = age is not None and 0 < view.ttl_seconds < age
            for feature in view.features:
                value = _plain(values.get(feature)) if values else None
                if value is None:
                    reading.missing.append(feature)
                elif stale:
                    reading.stale.append(feature)
                else:
                    reading.values[feature] = value
        return reading

    def _read_view(self, view: _View, entities: Mapping[str, str | int | None]) -> tuple[Any, Any]:
        if any(entities[name] is None for _, name, _ in view.keys):
            return None, None
        key = self._key_message(
            join_keys=[key for key, _, _ in view.keys],
            entity_values=[self._value_message(**{kind: entities[name]}) for _, name, kind in view.keys],
        )
        try:
            # A fresh list: the Redis store appends to the one it is given.
            ((instant, found),) = self._store.online_read(self._config, view.table, [key], list(view.features))
        except Exception as error:
            # Feast's stores keep a broken connection, and PostgreSQL's leaks one per failure.
            self._store = self._open()
            raise FeatureError(
                f"the online store cannot be read for {view.name}",
                measured=f"{type(error).__name__}: {error}",
                next_step="check DRIFTLINE_ONLINE_STORE_URL and run `driftline features materialize`",
            ) from error
        # Redis answers an unknown key with the epoch and empty values.
        if not found or (instant.timestamp() == 0 and all(value.WhichOneof("val") is None for value in found.values())):
            return None, None
        return instant, found


def _view(
    name: str, inputs: list[Input], tables: Mapping[str, Any], renamed: Mapping[str, str], spec: ServingSpec
) -> _View:
    if name not in tables:
        raise FeatureError(f"the registry has no feature view {name}", allowed=", ".join(sorted(tables)))
    table = tables[name]
    known = {feature.name for feature in table.features}
    unknown = [column.name for column in inputs if column.name not in known]
    if unknown:
        raise FeatureError(f"feature view {name} has no {', '.join(unknown)}", allowed=", ".join(sorted(known)))
    absent = [key for key in (renamed.get(k, k) for k in table.join_keys) if key not in spec.entities]
    if absent:
        raise FeatureError(f"feature view {name} needs the keys {', '.join(absent)}", allowed=", ".join(spec.entities))
    return _View(
        name=name,
        table=table,
        # The registry's type, not the training set's: it is the one that keys were written with.
        keys=[
            (column.name, renamed.get(column.name, column.name), _KEY_FIELDS[column.dtype.to_value_type().name])
            for column in table.entity_columns
        ],
        features=[column.name for column in inputs],
        ttl_seconds=inputs[0].ttl_seconds,
    )


def _plain(value: Any) -> Any:
    """Return the Python value of a Feast Value message; unset and NaN are None."""
    kind = value.WhichOneof("val") if value is not None else None
    if kind is None:
        return None
    plain = getattr(value, kind)
    return None if isinstance(plain, float) and math.isnan(plain) else plain
