"""Training rows as an online store would hold them, so that a lookup by key can be compared with training.

The store is a throwaway SQLite file: a probe neither needs nor touches the real one.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from components.core.online_store import ENTITY_KEY_VERSION, online_store_config
from components.core.serving import ServingSpec
from components.core.typechecks import skip_typechecks


class OnlineRows:
    """A Feast online store that is filled row by row."""

    def __init__(self, registry: Path, spec: ServingSpec, path: Path) -> None:
        """Create the tables of the model's views in a new SQLite file."""
        skip_typechecks()
        from feast import FeatureView
        from feast.infra.online_stores.helpers import get_online_store_from_config
        from feast.protos.feast.core.Registry_pb2 import Registry
        from feast.repo_config import RepoConfig

        content = Registry.FromString(registry.read_bytes())
        self._spec = spec
        self._tables = {
            proto.spec.name: FeatureView.from_proto(proto)
            for proto in content.feature_views
            if proto.spec.name in spec.views
        }
        self._renamed = {
            projection.feature_view_name: dict(projection.join_key_map)
            for service in content.feature_services
            for projection in service.spec.features
        }
        self.url = f"sqlite:///{path}"
        self._config = RepoConfig(
            project=content.feature_views[0].spec.project,
            provider="local",
            registry=str(registry),
            online_store=online_store_config(self.url),
            entity_key_serialization_version=ENTITY_KEY_VERSION,
        )
        self._store: Any = get_online_store_from_config(self._config.online_store)
        self._store.update(self._config, [], list(self._tables.values()), [], [], partial=False)

    def write(self, row: Mapping[str, Any], at: datetime) -> None:
        """Let one training row be the latest one of its keys, known since `at`.

        A view whose features are all null had no row at training time, so none is written.
        """
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.type_map import python_values_to_proto_values

        for name, inputs in self._spec.views.items():
            table = self._tables[name]
            renamed = self._renamed.get(name, {})
            keys = [(column, row[renamed.get(column.name, column.name)]) for column in table.entity_columns]
            wanted = {column.name for column in inputs}
            if any(value is None for _, value in keys) or all(row[column] is None for column in wanted):
                continue

            def proto(field: Any, value: Any) -> Any:
                return python_values_to_proto_values([value], field.dtype.to_value_type())[0]

            key = EntityKey(
                join_keys=[column.name for column, _ in keys],
                entity_values=[proto(column, value) for column, value in keys],
            )
            values = {field.name: proto(field, row[field.name]) for field in table.features if field.name in wanted}
            self._store.online_write_batch(self._config, table, [(key, values, at, at)], None)
