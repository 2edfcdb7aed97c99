"""Feature definitions: what a service is made of, its digest, and a registry file with exactly that."""

from typing import Any

from components.core.digests import json_digest
from components.core.errors import FeatureError


def service_views(store: Any, service: str) -> tuple[Any, list[Any]]:
    """Return a feature service of the registry and its feature views, both ordered by name.

    Feast takes two services that differ only in order for equal and keeps the older one, so its order means nothing.
    Raises FeatureError when the registry lacks the service or one of its views.
    """
    from feast.errors import FeastObjectNotFoundException

    try:
        found = store.registry.get_feature_service(service, store.project)
    except FeastObjectNotFoundException:
        known = sorted(s.name for s in store.registry.list_feature_services(store.project))
        raise FeatureError(
            f"the registry has no feature service {service} for {store.project}",
            measured=", ".join(known) or "no service at all",
            allowed=service,
            next_step="run `driftline features apply`, or correct features.service in use_case.yaml",
        ) from None
    found.feature_view_projections.sort(key=lambda projection: str(projection.name))
    for projection in found.feature_view_projections:
        projection.features.sort(key=lambda field: str(field.name))
    views = []
    for projection in found.feature_view_projections:
        try:
            views.append(store.registry.get_feature_view(projection.name, store.project))
        except FeastObjectNotFoundException:
            raise FeatureError(
                f"service {service} names {projection.name}, which is no feature view of the registry",
                allowed="feature views; on-demand transformations belong into tables/*.sql",
                next_step="correct features.py and run `driftline features apply`",
            ) from None
    return found, views


def registry_digest(store: Any, service: str) -> str:
    """Return the digest of a service as the registry defines it."""
    found, views = service_views(store, service)
    return definitions_digest(found, views, _entities(store, views))


def definitions_digest(service: Any, views: list[Any], entities: list[Any]) -> str:
    """Return the SHA-256 over everything that people define; instants, states and hash order are not part of it."""
    spec = {
        "service": {
            "name": service.name,
            "owner": service.owner,
            "tags": dict(service.tags),
            "views": [_projection(p) for p in service.feature_view_projections],
        },
        "views": {v.name: {**view_spec(v), "owner": v.owner, "tags": dict(v.tags)} for v in views},
        "entities": {
            e.name: {"join_key": e.join_key, "type": e.value_type.name, "tags": dict(e.tags)} for e in entities
        },
    }
    return json_digest(spec)


def service_registry(store: Any, service: str) -> bytes:
    """Return a serialized Feast registry that holds exactly one service, for serving to open as a file.

    Equal definitions give equal bytes.
    """
    from feast.protos.feast.core.Registry_pb2 import Registry

    found, views = service_views(store, service)
    registry = Registry(registry_schema_version="1")
    project = registry.projects.add()
    project.spec.name = store.project
    for entity in _entities(store, views):
        registry.entities.add().spec.CopyFrom(entity.to_proto().spec)
    for view in sorted(views, key=lambda v: str(v.name)):
        registry.feature_views.add().spec.CopyFrom(_sorted_spec(view))
    for source in sorted({v.batch_source.name: v.batch_source for v in views}.items()):
        registry.data_sources.add().CopyFrom(_bare_source(source[1]))
    registry.feature_services.add().spec.CopyFrom(found.to_proto().spec)
    for projection in registry.feature_services[0].spec.features:
        projection.batch_source.ClearField("meta")
    for spec in (
        r.spec for group in (registry.entities, registry.feature_views, registry.feature_services) for r in group
    ):
        spec.project = store.project
    for spec in registry.data_sources:
        spec.project = store.project
    return bytes(registry.SerializeToString(deterministic=True))


def _entities(store: Any, views: list[Any]) -> list[Any]:
    names = sorted({name for view in views for name in view.entities})
    return [store.registry.get_entity(name, store.project) for name in names]


def _projection(projection: Any) -> dict[str, Any]:
    return {
        "name": projection.name,
        "alias": projection.name_alias or "",
        "features": [(field.name, str(field.dtype)) for field in projection.features],
        "keys": dict(projection.join_key_map),
    }


def view_spec(view: Any) -> dict[str, Any]:
    """Return what decides a view's values: keys, features, TTL and source."""
    source = view.batch_source
    return {
        "entities": sorted(view.entities),
        "keys": sorted((field.name, str(field.dtype)) for field in view.entity_columns),
        "features": sorted((field.name, str(field.dtype)) for field in view.features),
        "ttl_seconds": view.ttl.total_seconds() if view.ttl else 0.0,
        "online": view.online,
        "source": {
            "table": source.path,
            "timestamp": source.timestamp_field,
            "created": source.created_timestamp_column or "",
            "renamed": dict(source.field_mapping),
        },
    }


def _sorted_spec(view: Any) -> Any:
    """Return a view's spec with its fields in order of name and without instants."""
    spec = view.to_proto().spec
    for fields in (spec.features, spec.entity_columns):
        ordered = sorted(fields, key=lambda field: str(field.name))
        del fields[:]
        fields.extend(ordered)
    if spec.HasField("batch_source"):
        spec.batch_source.CopyFrom(_bare_source(view.batch_source))
    return spec


def _bare_source(source: Any) -> Any:
    proto = source.to_proto()
    proto.ClearField("meta")
    return proto
