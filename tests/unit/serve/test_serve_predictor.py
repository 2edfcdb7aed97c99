"""Row encoding equals column encoding; the scorer answers or says why not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.bundle import ONNX, Column, Encoding
from components.core.errors import DataError
from components.serve.predictor import RowEncoder, Scorer

LETTERS = st.text("abé ", max_size=3)
COLUMNS = st.lists(
    st.one_of(
        st.builds(lambda name: Column(name=name, kind="number"), LETTERS),
        st.builds(
            lambda name, categories: Column(name=name, kind="category", categories=categories),
            LETTERS,
            st.lists(LETTERS, unique=True, max_size=4),
        ),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda column: column.name,
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Encoding, list[dict[str, Any]]]:
    encoding = Encoding(columns=draw(COLUMNS))
    numbers = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(width=32), st.floats(-1e38, 1e38))
    values = {
        column.name: numbers if column.kind == "number" else st.one_of(st.none(), LETTERS, st.integers(0, 3))
        for column in encoding.columns
    }
    return encoding, draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=4))


@given(cases())
def test_rows_are_encoded_like_columns(case: tuple[Encoding, list[dict[str, Any]]]) -> None:
    encoding, rows = case
    columns = {name: [row[name] for row in rows] for name in encoding.names}
    expected = encoding.encode(columns, len(rows))
    measured = RowEncoder(encoding).encode(rows)
    assert measured.dtype == np.float32
    np.testing.assert_array_equal(measured, expected)


def test_an_absent_value_is_missing() -> None:
    encoding = Encoding(columns=[Column(name="a", kind="number"), Column(name="b", kind="category", categories=["x"])])
    assert np.isnan(RowEncoder(encoding).encode([{}])).all()


def test_a_model_that_does_not_answer_is_refused(served: Any, model: Any, tmp_path: Any) -> None:
    for path in served.bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Scorer(tmp_path).score([{}]) == pytest.approx([0.5])
    model.write_graph(tmp_path / ONNX, np.full(6, np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="does not answer"):
        Scorer(tmp_path)
