"""Labels for logged predictions, as they were known at an instant.

A label may never come (its prediction stays, with null), arrive twice, or change later. At `as_of` the version that
became known last counts, so the answer for one `as_of` never changes and a correction counts from its own instant on.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import DataError
from components.core.inference_log import KEY
from components.core.tables import TIMESTAMP, require_utc_micros

LABEL = "label"
LABEL_TIMESTAMP = "label_timestamp"


def by_entity(entities: Iterable[str]) -> dict[str, str]:
    """Return the columns that say what was predicted: entity keys and the prediction instant."""
    return {**{KEY + name: name for name in entities}, "as_of": "event_timestamp"}


def joined_ids(rows: pa.Table, ids: Sequence[str]) -> pa.ChunkedArray:
    """Return the text that names each prediction: its id columns joined by a space, as batch scoring names requests."""
    texts = [rows.column(name).cast(pa.string()) for name in ids]
    return pc.binary_join_element_wise(*texts, " ") if rows.num_rows else pa.chunked_array([[]], pa.string())


def join_labels(
    predictions: pa.Table,
    labels: pa.Table,
    *,
    on: Mapping[str, str],
    label: str,
    as_of: datetime,
    ids: Sequence[str] = (),
) -> pa.Table:
    """Return the predictions, in order, with `label` (float64) and `label_timestamp`; both null while unknown.

    `on` maps columns of the predictions to columns of the labels (`by_entity`, or `{"request_id": "flight_id"}` where
    callers name their requests); null equals null, instants must be equal. Labels are rows of a prediction table:
    `label_timestamp` is when one became known, ties are broken by `created_timestamp` if there is one, then by order.
    `ids` are columns that identify a label's event: where several events share what is joined on, nobody knows which
    was predicted, and no label is joined. Raises DataError for missing columns and types that do not compare.
    """
    absent = [n for n in (*on.values(), label, LABEL_TIMESTAMP, *ids) if n not in labels.column_names]
    absent += [n for n in on if n not in predictions.column_names]
    if absent:
        raise DataError("labels cannot be joined: columns are missing", measured=", ".join(absent))
    require_utc_micros(labels.schema, LABEL_TIMESTAMP, where="labels")
    known = pc.fill_null(pc.less_equal(labels.column(LABEL_TIMESTAMP), pa.scalar(as_of, TIMESTAMP)), False)
    known = pc.and_(known, pc.is_valid(labels.column(label)))
    labels = labels.filter(known)
    asked, offered = _group(predictions, labels, on)
    winner = _last_known(labels, offered, groups=int(max(asked.max(initial=-1), offered.max(initial=-1))) + 1)
    if ids:
        winner[_ambiguous(labels, offered, ids)] = -1
    chosen = winner[asked]
    take = pa.array(chosen, mask=chosen < 0)
    joined = predictions.append_column(LABEL, labels.column(label).cast(pa.float64()).take(take))
    return joined.append_column(LABEL_TIMESTAMP, labels.column(LABEL_TIMESTAMP).take(take))


def _group(
    predictions: pa.Table, labels: pa.Table, on: Mapping[str, str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return a number per prediction and per label; equal numbers mean equal values in all columns."""
    columns = []
    for mine, theirs in on.items():
        left, right = predictions.column(mine), labels.column(theirs)
        try:
            columns.append(pa.chunked_array([*left.chunks, *right.cast(left.type).chunks], left.type))
        except pa.ArrowException as error:
            raise DataError(
                f"{theirs} of the labels does not compare with {mine}", measured=right.type, allowed=left.type
            ) from error
    numbers = _numbers(columns, predictions.num_rows + labels.num_rows)
    return numbers[: predictions.num_rows], numbers[predictions.num_rows :]


def _numbers(columns: Iterable[pa.ChunkedArray], rows: int) -> npt.NDArray[np.int64]:
    """Number the distinct rows of some columns, from zero; null is a value."""
    numbers = np.zeros(rows, dtype=np.int64)
    for column in columns:
        codes = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
        # Dense again after each column, so that the product stays far below 2^63.
        numbers = np.unique(numbers * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1]
    return numbers


def _last_known(labels: pa.Table, numbers: npt.NDArray[np.int64], *, groups: int) -> npt.NDArray[np.int64]:
    """Return the row of the label that counts for each number, -1 where there is none."""
    order = [name for name in (LABEL_TIMESTAMP, "created_timestamp") if name in labels.column_names]
    keys = [labels.column(name).cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy() for name in order]
    rank = np.lexsort([np.arange(labels.num_rows), *reversed(keys)])
    last = np.full(groups, -1, dtype=np.int64)
    np.maximum.at(last, numbers[rank], np.arange(labels.num_rows))
    found = last >= 0
    last[found] = rank[last[found]]
    return last


def _ambiguous(labels: pa.Table, numbers: npt.NDArray[np.int64], ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the numbers that labels of more than one event share."""
    events = _numbers([labels.column(name) for name in ids], labels.num_rows)
    pairs = np.unique(np.stack([numbers, events]), axis=1)
    shared, counts = np.unique(pairs[0], return_counts=True)
    return shared[counts > 1]
