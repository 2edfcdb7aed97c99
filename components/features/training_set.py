"""Build the training set: prediction rows with a mature label, joined point-in-time to the features of a service."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.digests import file_digest
from components.core.errors import DataError, FeatureError
from components.core.sections import Features, InputKind, Problem
from components.core.storage import write_atomically
from components.core.tables import TIMESTAMP, Snapshot, read_table
from components.core.training_set import REGISTRY, ROWS, Input, TrainingSet, write_manifest
from components.features.checks import check_features, check_predictions, require_columns
from components.features.definitions import registry_digest, service_registry, service_views


def write_training_set(
    folder: Path,
    store: Any,
    snapshots: Path,
    snapshot: Snapshot,
    *,
    problem: Problem,
    config: Features,
    as_of: datetime,
) -> TrainingSet:
    """Write `training_set.parquet`, `registry.pb` and then `training_set.json`; return the description.

    Columns: id, entities, event_timestamp, label_timestamp (timestamp[us, UTC]), label (float64), inputs (categories as
    string, numbers as float64). Rows are ordered by instant and id; equal input gives equal bytes.
    Raises DataError for wrong rows, FeatureError for wrong definitions.
    """
    definitions = read_definitions(store, problem, config)
    rows = labelled_rows(snapshots, snapshot, problem, as_of)
    return write_joined(
        folder, store, snapshot, definitions, rows, problem=problem, config=config, as_of=as_of, allow_empty=False
    )


@dataclass(frozen=True)
class Definitions:
    """What the registry says about a service."""

    service: Any
    views: list[Any]
    inputs: list[Input]


def read_definitions(store: Any, problem: Problem, config: Features) -> Definitions:
    """Read the service of a use case and derive the model's inputs. Raises FeatureError for wrong definitions."""
    service, views = service_views(store, config.service)
    return Definitions(service, views, model_inputs(problem, service, views))


def write_joined(
    folder: Path,
    store: Any,
    snapshot: Snapshot,
    definitions: Definitions,
    rows: pa.Table,
    *,
    problem: Problem,
    config: Features,
    as_of: datetime,
    allow_empty: bool = True,
) -> TrainingSet:
    """Join features to prediction rows and write the three files; `allow_empty` lets features have no value at all."""
    features = [i.name for i in definitions.inputs if i.view]
    joined = join_features(store, definitions.service, definitions.views, rows, problem.entities)
    table = _arrange(rows, joined.select(features), problem, definitions.inputs)
    if not allow_empty:
        check_features(table, features)
    write_atomically(folder / ROWS, lambda path: pq.write_table(table, path, compression="zstd"))
    registry = service_registry(store, config.service)
    write_atomically(folder / REGISTRY, lambda path: path.write_bytes(registry))
    training_set = TrainingSet(
        use_case=snapshot.use_case,
        as_of=as_of,
        snapshot=snapshot.digest,
        service=config.service,
        registry=registry_digest(store, config.service),
        digest=file_digest(folder / ROWS),
        rows=table.num_rows,
        id=problem.id,
        entities={name: str(table.schema.field(name).type) for name in problem.entities},
        label=problem.label,
        inputs=definitions.inputs,
        stale=config.stale,
        missing=config.missing,
    )
    write_manifest(folder, training_set)
    return training_set


def labelled_rows(snapshots: Path, snapshot: Snapshot, problem: Problem, as_of: datetime) -> pa.Table:
    """Return the checked prediction rows whose label is known, ordered by instant and id."""
    wanted = dict.fromkeys(
        [*problem.id, *problem.entities, "event_timestamp", "label_timestamp", problem.label, *problem.inputs]
    )
    present = snapshot.tables[problem.table].columns if problem.table in snapshot.tables else {}
    if present:
        require_columns(list(present), list(wanted), where=problem.table)
    table = read_table(snapshots, snapshot, problem.table, list(wanted))
    table = table.filter(pc.is_valid(table.column(problem.label)))
    check_predictions(table, problem, as_of)
    return table.sort_by([("event_timestamp", "ascending"), *((column, "ascending") for column in problem.id)])


def model_inputs(problem: Problem, service: Any, views: list[Any]) -> list[Input]:
    """Return the model's inputs in order: those of the request, then the features by view and name.

    Raises FeatureError for a feature that is no number or text, whose name is taken, or of a view under another name.
    """
    inputs = [Input(name=name, kind=kind) for name, kind in problem.inputs.items()]
    taken = {*problem.inputs, *problem.id, *problem.entities, problem.label, "event_timestamp", "label_timestamp"}
    for projection, view in zip(service.feature_view_projections, views, strict=True):
        if projection.name_alias or projection.join_key_map:
            raise FeatureError(
                f"service {service.name} uses view {view.name} under another name or key, which serving cannot read",
                measured=projection.name_alias or projection.join_key_map,
                allowed="the view itself",
                next_step="define a second view over the same table in features.py",
            )
        for field in projection.features:
            if field.name in taken:
                raise FeatureError(
                    f"the name of feature {projection.name}:{field.name} is taken",
                    measured=field.name,
                    allowed="names unlike those of other inputs, ids, entities and the label",
                    next_step="rename the column in the table's SQL and in features.py",
                )
            taken.add(field.name)
            ttl = int(view.ttl.total_seconds()) if view.ttl else 0
            inputs.append(Input(name=field.name, kind=_kind(field), view=projection.name, ttl_seconds=ttl))
    return inputs


def join_features(store: Any, service: Any, views: list[Any], rows: pa.Table, entities: list[str]) -> pa.Table:
    """Return one row of features per given row, in the same order.

    Raises FeatureError when a view is keyed by a column that `problem.entities` does not name.
    """
    for view in views:
        unknown = [key for key in view.join_keys if key not in entities]
        if unknown:
            raise FeatureError(
                f"view {view.name} is keyed by columns that problem.entities does not name",
                measured=", ".join(unknown),
                allowed=", ".join(entities),
                next_step="add them to problem.entities and select them in the prediction table",
            )
    import pandas as pd

    # Arrow-backed columns: the round trip through the DataFrame that Feast asks for copies nothing.
    frame = rows.select(list(dict.fromkeys([*entities, "event_timestamp"]))).to_pandas(types_mapper=pd.ArrowDtype)
    # By reference: Feast would warn that this service, ordered by name, is not the registry's.
    wanted = [f"{p.name}:{field.name}" for p in service.feature_view_projections for field in p.features]
    return store.get_historical_features(entity_df=frame, features=wanted).to_arrow()


def _arrange(rows: pa.Table, features: pa.Table, problem: Problem, inputs: list[Input]) -> pa.Table:
    """Bring columns into their agreed order and types."""
    kinds = {i.name: pa.string() if i.kind == "category" else pa.float64() for i in inputs}
    types = {"event_timestamp": TIMESTAMP, "label_timestamp": TIMESTAMP, problem.label: pa.float64(), **kinds}
    columns: dict[str, pa.ChunkedArray] = {}
    order = [*problem.id, *problem.entities, "event_timestamp", "label_timestamp", problem.label, *kinds]
    for name in dict.fromkeys(order):
        source = rows if name in rows.column_names else features
        values = source.column(name)
        try:
            columns[name] = values.cast(types.get(name, values.type)).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{name} cannot be read as {types[name]}",
                measured=f"{values.type}: {error}",
                allowed=str(types[name]),
                next_step="cast it in SQL or correct its kind in problem.inputs",
            ) from error
    return pa.table(columns)


def _kind(field: Any) -> InputKind:
    from feast.types import Bool, Float32, Float64, Int32, Int64, String

    if field.dtype == String:
        return "category"
    if field.dtype in (Bool, Float32, Float64, Int32, Int64):
        return "number"
    raise FeatureError(
        f"feature {field.name} has a type that is neither a number nor a category",
        measured=str(field.dtype),
        allowed="Float64, Float32, Int64, Int32, Bool, String",
        next_step="cast it in the table's SQL and in features.py",
    )
