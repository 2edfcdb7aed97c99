"""The inference log: every answered prediction as Parquet, the same for whoever writes it and whoever reads it.

<root>/<use case>/<day of as_of, UTC>/<writer>-<sequence>.parquet

The day is that of the prediction instant, not of the answer: windows, maturity and labels go by it, so a window, a
replay on a virtual clock and retention touch their own folders only. A file appears whole (`core.storage`) and never
changes. Its metadata `driftline` is a JSON `Origin`. What a writer lost is told by `core.inference_losses`.

Columns: request_id, row (position within a request), served_at and as_of (timestamp[us, UTC]; a route that takes no
instant is as of its answer), route, model_version, model (digest), `key_<entity>` (null where a route takes no keys),
`input_<name>` as served, that is after stale and missing values became null (float64 or string; the model sees
float32), the names in stale and missing, and prediction (float64).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.errors import DataError
from components.core.object_store import fetch, publish_once
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.core.storage import create_once, write_atomically
from components.core.tables import TIMESTAMP

KEY = "key_"
INPUT = "input_"
LOOKUP, READY, BATCH = "predict", "predict_ready", "predict_batch"
"""Routes of a server."""
BATCH_SCORING = "scoring"
"""The scoring pipeline; every row is a request of its own, named by the id columns of its prediction."""
KEYED = (LOOKUP, BATCH_SCORING)
"""Routes that take entity keys."""
METADATA = b"driftline"
_NAMES = pa.list_(pa.string())
_HEAD = {
    "request_id": pa.string(),
    "row": pa.int32(),
    "served_at": TIMESTAMP,
    "as_of": TIMESTAMP,
    "route": pa.string(),
    "model_version": pa.int64(),
    "model": pa.string(),
}
_TAIL = {"stale": _NAMES, "missing": _NAMES, "prediction": pa.float64()}
_KEY_TYPES = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64()}
_DAY_MICROS = 86_400_000_000

Entry = tuple[str, float, float, str, Sequence[Sequence[Any]], Sequence[str], Sequence[str], Sequence[float]]
"""One answered request: id, answered at and as of (Unix seconds), route, rows, stale, missing, a prediction per row.

A row holds the values of `row_names`.
"""


class Origin(BaseModel):
    """Who wrote a file, and that writer's running totals including the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    writer: str
    sequence: int
    written: int
    """Rows in all files of the writer so far."""
    dropped: int
    """Rows that it had to refuse so far because its buffer was full."""


def log_schema(spec: ServingSpec) -> pa.Schema:
    """Return the columns of a model's rows."""
    keys = {KEY + name: _KEY_TYPES[kind] for name, kind in spec.entities.items()}
    inputs = {INPUT + c.name: pa.float64() if c.kind == "number" else pa.string() for c in spec.inputs}
    return pa.schema(list({**_HEAD, **keys, **inputs, **_TAIL}.items()))


def row_names(spec: ServingSpec) -> tuple[str, ...]:
    """Return the names of a row's values: entities (read only where the route takes keys), then inputs."""
    return (*spec.entities, *(column.name for column in spec.inputs))


def row_values(names: Sequence[str], row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a row's values by `row_names`; a name that the row does not have is null."""
    return tuple(map(row.get, names))


def encode(spec: ServingSpec, entries: Sequence[Entry]) -> pa.Table:
    """Turn answered requests into rows of `log_schema`, in order."""
    flat = [
        (request_id, number, served_at, as_of, route, row, stale, missing, prediction)
        for request_id, served_at, as_of, route, rows, stale, missing, predictions in entries
        for number, (row, prediction) in enumerate(zip(rows, predictions, strict=True))
    ]
    ids, numbers, served_at, as_of, routes, rows, stale, missing, predictions = zip(*flat, strict=True)
    schema = log_schema(spec)
    values = list(zip(*rows, strict=True))
    keyed = [route in KEYED for route in routes]
    keys = [
        [value if known else None for value, known in zip(column, keyed, strict=True)]
        for column in values[: len(spec.entities)]
    ]
    inputs = values[len(spec.entities) :]
    columns = {
        "request_id": pa.array(ids, pa.string()),
        "row": pa.array(numbers, pa.int32()),
        "served_at": _instants(served_at),
        "as_of": _instants(as_of),
        "route": pa.array(routes, pa.string()),
        "model_version": pa.repeat(pa.scalar(spec.version, pa.int64()), len(flat)),
        "model": pa.repeat(spec.model, len(flat)),
        **{
            name: _values(values, schema.field(name).type)
            for name, values in zip(schema.names[len(_HEAD) : -len(_TAIL)], [*keys, *inputs], strict=True)
        },
        "stale": pa.array(stale, _NAMES),
        "missing": pa.array(missing, _NAMES),
        "prediction": pa.array(predictions, pa.float64()),
    }
    return pa.table(columns, schema=schema)


def _instants(seconds: Sequence[float]) -> pa.Array:
    return pa.array(np.rint(np.array(seconds) * 1e6).astype(np.int64)).view(TIMESTAMP)


def _values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # An online store may hold another type than the model's: it is logged as the model read it.
        convert: Any = str if kind == pa.string() else float
        return pa.array([None if value is None else convert(value) for value in values], kind)


def split_days(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each day of `as_of`, as YYYY-MM-DD in UTC, oldest first."""
    micros: npt.NDArray[np.int64] = table.column("as_of").cast(pa.int64()).to_numpy()
    days = micros // _DAY_MICROS
    for day in np.unique(days):
        yield str(np.datetime64(int(day), "D")), table.filter(pa.array(days == day))


def part_path(root: Path, use_case: str, day: str, writer: str, sequence: int) -> Path:
    """Return where a writer's file of one day lies."""
    return root / use_case / day / f"{writer}-{sequence:08d}.parquet"


def write_part(root: Path, use_case: str, day: str, table: pa.Table, origin: Origin) -> Path:
    """Write rows of one day as one new file. Raises StorageFailed, and leaves nothing then."""
    path = part_path(root, use_case, day, origin.writer, origin.sequence)
    write_atomically(path, lambda temporary: _fill(temporary, table, origin))
    return path


def create_part(settings: Settings, use_case: str, day: str, table: pa.Table, origin: Origin) -> bool:
    """Write rows of one day unless their file is there, whoever made it; return whether this call wrote it.

    Also among machines that share an object store: the file that came first lies at its place here afterwards. Raises
    StorageFailed, and leaves nothing then.
    """
    path = part_path(settings.predictions, use_case, day, origin.writer, origin.sequence)
    created = create_once(path, lambda temporary: _fill(temporary, table, origin))
    if not settings.object_store_url:
        return created
    # A file that was made here and not published yet is published now.
    if publish_once(settings, path):
        return True
    fetch(settings, path, again=True)
    return False


def _fill(path: Path, table: pa.Table, origin: Origin) -> None:
    named = table.replace_schema_metadata({METADATA: origin.model_dump_json()})
    text = [field.name for field in table.schema if field.type == pa.string()]
    pq.write_table(named, path, compression="zstd", use_dictionary=text)


def part_files(root: Path, use_case: str, first: datetime, last: datetime) -> list[Path]:
    """Return the files that may hold predictions as of `first` (included) to `last` (excluded)."""
    if first >= last:
        return []
    days = [str(instant.astimezone(UTC).date()) for instant in (first, last - timedelta(microseconds=1))]
    folder = root / use_case
    found = sorted(path for path in folder.iterdir() if days[0] <= path.name <= days[1]) if folder.is_dir() else []
    return [path for day in found for path in sorted(day.glob("*.parquet")) if not path.name.startswith(".")]


def read_predictions(
    root: Path, use_case: str, first: datetime, last: datetime, *, version: int | None = None
) -> pa.Table:
    """Return the predictions as of `first` (included) to `last` (excluded), of one model version or of all.

    Columns of several versions are united by name: what a version does not have is null, and an input that was a
    number in one and a category in another is text. Sorted by as_of, served_at, request_id and row. Safe while others
    write. Raises DataError for a damaged file.
    """
    tables = []
    for path in part_files(root, use_case, first, last):
        try:
            table = pq.ParquetFile(path).read().replace_schema_metadata()
        except (OSError, pa.ArrowException) as error:
            raise DataError("a file of the inference log cannot be read", measured=f"{path}: {error}") from error
        as_of = table.column("as_of")
        chosen = pc.and_(
            pc.greater_equal(as_of, pa.scalar(first, TIMESTAMP)), pc.less(as_of, pa.scalar(last, TIMESTAMP))
        )
        if version is not None:
            chosen = pc.and_(chosen, pc.equal(table.column("model_version"), version))
        tables.append(table.filter(chosen))
    united = _unite(tables)
    return united.sort_by([(name, "ascending") for name in ("as_of", "served_at", "request_id", "row")])


def _unite(tables: list[pa.Table]) -> pa.Table:
    middle: dict[str, pa.DataType] = {}
    for field in (field for table in tables for field in table.schema if field.name not in {**_HEAD, **_TAIL}):
        known = middle.setdefault(field.name, field.type)
        if known != field.type:
            both_whole = pa.types.is_integer(known) and pa.types.is_integer(field.type)
            middle[field.name] = pa.int64() if both_whole else pa.string()
    names = sorted(middle, key=lambda name: not name.startswith(KEY))
    schema = pa.schema(list({**_HEAD, **{name: middle[name] for name in names}, **_TAIL}.items()))
    return pa.concat_tables([schema.empty_table(), *(_conform(table, schema) for table in tables)])


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
