"""The columnar encoder of the inference log against the row-wise one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.inference_columns import encode_columns
from components.core.inference_log import BATCH_SCORING, READY, Entry, encode, row_names, row_values
from components.core.serving import ServingSpec
from components.core.training_set import Input

START = datetime(2013, 4, 1, tzinfo=UTC)
SPEC = ServingSpec(
    use_case="rides",
    version=4,
    model="4" * 64,
    entities={"carrier": "string", "badge": "int64"},
    inputs=[
        Input(name="carrier", kind="category"),
        Input(name="distance", kind="number"),
        Input(name="late", kind="number", view="stats", ttl_seconds=60),
        Input(name="kind", kind="category", view="stats", ttl_seconds=60),
    ],
    stale="null",
    missing="null",
    buckets=[0.5],
    workers=1,
    timeout_seconds=10,
    max_batch_rows=100,
    max_request_bytes=20_000,
)
numbers = st.none() | st.floats(allow_infinity=False, allow_nan=False)
rides = st.fixed_dictionaries(
    {
        "carrier": st.none() | st.text(max_size=3),
        "badge": st.none() | st.integers(-(2**63), 2**63 - 1),
        "distance": numbers,
        "late": numbers,
        "kind": st.none() | st.sampled_from(["big", "small"]),
    }
)


@settings(deadline=None)
@given(
    rows=st.lists(rides, min_size=1, max_size=20),
    route=st.sampled_from([BATCH_SCORING, READY]),
    chunks=st.integers(1, 3),
)
def test_columns_equal_rows(rows: list[dict[str, Any]], route: str, chunks: int) -> None:
    instants = [START + timedelta(minutes=n) for n in range(len(rows))]
    predictions = np.linspace(0, 1, len(rows), dtype=np.float32)
    entries: list[Entry] = [
        (
            f"r{n}",
            START.timestamp(),
            instants[n].timestamp(),
            route,
            [row_values(row_names(SPEC), row)],
            [],
            [name for name in ("late", "kind") if row[name] is None],
            [float(predictions[n])],
        )
        for n, row in enumerate(rows)
    ]
    kinds = {"carrier": pa.large_string(), "badge": pa.int64(), "distance": pa.float64(), "late": pa.float64()}
    table = pa.table(
        {name: pa.array([row[name] for row in rows], kinds.get(name, pa.string())) for name in rows[0]}
        | {"event_timestamp": pa.array(instants, pa.timestamp("us", "UTC"))}
    )
    size = -(-len(rows) // chunks)
    pieces = pa.concat_tables([table.slice(start, size) for start in range(0, len(rows), size)])
    encoded = encode_columns(
        SPEC,
        pieces,
        predictions,
        request_ids=pa.array([f"r{n}" for n in range(len(rows))]),
        served_at=START,
        route=route,
    )
    encoded.validate(full=True)
    assert encoded.equals(encode(SPEC, entries))


def test_nan_is_missing() -> None:
    nan = float("nan")
    table = pa.table(
        {
            "carrier": ["AA"],
            "badge": [1],
            "distance": [nan],
            "late": [nan],
            "kind": ["big"],
            "event_timestamp": pa.array([START], pa.timestamp("us", "UTC")),
        }
    )
    (row,) = encode_columns(
        SPEC,
        table,
        np.array([0.5], dtype=np.float32),
        request_ids=pa.array(["a"]),
        served_at=START,
        route=BATCH_SCORING,
    ).to_pylist()
    assert row["input_distance"] is row["input_late"] is None
    assert (row["missing"], row["key_carrier"], row["key_badge"]) == (["late"], "AA", 1)
