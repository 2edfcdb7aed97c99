"""Feast offline store that reads exactly one pinned snapshot and joins as of an instant.

Feast's own DuckDB store compares every history row within the TTL; an ASOF join does not. The path of a `FileSource` is
the name of a snapshot table, so two runs never see each other's data.
See also Feast pull request 4850 (ASOF in Snowflake).
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.on_demand_feature_view import OnDemandFeatureView

from components.core.errors import FeatureError
from components.core.tables import partition_files, read_snapshot
from components.features.asof_sql import View
from components.features.point_in_time import join, latest, rows


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """Configuration of the store."""

    type: Literal["components.features.asof_store.AsofOfflineStore"] = "components.features.asof_store.AsofOfflineStore"
    manifest: str = ""
    """Path of the snapshot manifest; empty where only definitions are needed."""
    snapshots: str = ""
    """Root that the manifest's partition paths are relative to."""


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Point-in-time reads of one snapshot."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> "ArrowRetrieval":
        """Join the referenced features to the entity rows; row i of the result is row i of `entity_df`.

        Raises FeatureError for an entity query in SQL and for views or columns that the snapshot lacks, DataError for
        naive or sub-microsecond timestamps.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise FeatureError(
                "entity rows must be a DataFrame", measured=type(entity_df).__name__, allowed="DataFrame"
            )
        timestamp = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes.items()))
        views = [_joined(config, view, feature_refs, full_names=full_feature_names) for view in feature_views]
        entities = pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
        return ArrowRetrieval(
            lambda: join(entities, timestamp, views, only_created=filter_by_created_timestamp),
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=sorted(set(entity_df.columns) - {timestamp}),
                min_event_timestamp=entity_df[timestamp].min(),
                max_event_timestamp=entity_df[timestamp].max(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> "ArrowRetrieval":
        """Read the latest row of every key within [start_date, end_date]."""
        view = _pulled(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return ArrowRetrieval(lambda: latest(view, start_date, end_date))

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> "ArrowRetrieval":
        """Read all rows within [start_date, end_date]."""
        view = _pulled(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return ArrowRetrieval(lambda: rows(view, start_date, end_date))


class ArrowRetrieval(RetrievalJob):  # type: ignore[misc]
    """A read that runs when its result is asked for, and stays in Arrow."""

    def __init__(
        self,
        read: Callable[[], pa.Table],
        *,
        on_demand: list[Any] | None = None,
        full_feature_names: bool = False,
        metadata: Any = None,
    ) -> None:
        super().__init__()
        self._read = read
        self._on_demand = on_demand or []
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._read()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> Any:
        return self._metadata


def _joined(config: Any, view: FeatureView, feature_refs: list[str], *, full_names: bool) -> View:
    """Describe a feature view and the features asked of it."""
    prefix = view.projection.name_to_use()
    features = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == prefix]
    source = view.batch_source
    if source is None:
        raise FeatureError(f"view {view.name} has no batch source", next_step="give it a FileSource in features.py")
    column = {feature: name for name, feature in source.field_mapping.items()}
    keys = view.projection.join_key_map or {entity.name: entity.name for entity in view.entity_columns}
    name = view.projection.name_alias or view.name
    return View(
        name=view.name,
        files=_files(config, source),
        keys={column.get(key, key): entity for key, entity in keys.items()},
        columns={column.get(f, f): f"{name}__{f}" if full_names else f for f in features},
        timestamp=source.timestamp_field,
        created=source.created_timestamp_column or "",
        ttl=view.ttl,
    )


def _pulled(config: Any, source: Any, keys: list[str], columns: list[str], timestamp: str, created: str | None) -> View:
    return View(
        name=source.name,
        files=_files(config, source),
        keys={key: key for key in keys},
        columns={column: column for column in columns},
        timestamp=timestamp,
        created=created or "",
    )


def _files(config: Any, source: Any) -> list[Path]:
    """Resolve the logical table name of a source to the files of the pinned snapshot."""
    store = config.offline_store
    if not store.manifest:
        raise FeatureError(
            f"no snapshot is pinned, so {source.path} cannot be read",
            next_step="open the feature store with a snapshot manifest",
        )
    return partition_files(Path(store.snapshots), read_snapshot(Path(store.manifest)), source.path)
