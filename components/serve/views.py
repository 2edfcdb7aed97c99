"""The feature views of a model as a registry file describes them, prepared for lookups by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import FeatureError
from components.core.serving import ServingSpec
from components.core.typechecks import skip_typechecks

_KEY_FIELDS = {"STRING": "string_val", "INT32": "int32_val", "INT64": "int64_val"}


@dataclass(frozen=True, slots=True)
class View:
    """One feature view, as far as a model reads it."""

    name: str
    table: Any
    keys: list[tuple[str, str, str]]
    """Join key, its name in a request, and the field of Feast's Value message that carries it."""
    features: list[str]
    ttl_seconds: int
    """Age after which a value is stale; 0: never."""


def read_views(registry: Path, spec: ServingSpec) -> tuple[str, list[View]]:
    """Return the Feast project and the views of a model, in model order.

    Raises FeatureError when the registry lacks a view or a feature, or a request lacks a key.
    """
    skip_typechecks()
    from feast import FeatureView
    from feast.protos.feast.core.Registry_pb2 import Registry

    content = Registry.FromString(registry.read_bytes())
    tables = {proto.spec.name: FeatureView.from_proto(proto) for proto in content.feature_views}
    projects = {proto.spec.project for proto in content.feature_views if proto.spec.name in spec.views}
    renamed = {
        projection.feature_view_name: dict(projection.join_key_map)
        for service in content.feature_services
        for projection in service.spec.features
    }
    views = [_view(name, tables, renamed.get(name, {}), spec) for name in spec.views]
    if len(projects) != 1:
        raise FeatureError("the views of a service must belong to one project", measured=sorted(projects))
    return projects.pop(), views


def _view(name: str, tables: Mapping[str, Any], renamed: Mapping[str, str], spec: ServingSpec) -> View:
    if name not in tables:
        raise FeatureError(f"the registry has no feature view {name}", allowed=", ".join(sorted(tables)))
    table, inputs = tables[name], spec.views[name]
    known = {feature.name for feature in table.features}
    unknown = [column.name for column in inputs if column.name not in known]
    if unknown:
        raise FeatureError(f"feature view {name} has no {', '.join(unknown)}", allowed=", ".join(sorted(known)))
    absent = [key for key in (renamed.get(k, k) for k in table.join_keys) if key not in spec.entities]
    if absent:
        raise FeatureError(f"feature view {name} needs the keys {', '.join(absent)}", allowed=", ".join(spec.entities))
    return View(
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
