"""Preparing rows: what is read, encoded and refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError
from components.core.sections import Problem, Train
from components.core.training_set import ROWS
from components.train.rows import prepare

Build = Callable[..., Path]
Section = Callable[..., Train]


def test_only_labelled_rows_count_and_nothing_is_reordered(build: Build, problem: Problem, section: Section) -> None:
    prepared = prepare(build(), "delays", problem, section())
    assert 0 < prepared.table.num_rows < 5_000
    assert prepared.table.column("target").null_count == 0
    parts = prepared.split
    assert len(parts.training) == len(prepared.training.labels) == len(prepared.training.inputs)
    assert np.array_equal(prepared.encode(parts.validation), prepared.validation.inputs, equal_nan=True)
    assert np.array_equal(prepared.labels[parts.validation], prepared.validation.labels)


def test_the_encoding_knows_training_categories_only_and_sorted(
    build: Build, problem: Problem, section: Section
) -> None:
    def new_carrier_after_training(values: dict[str, Any]) -> None:
        values["carrier"][-1_500:] = ["AAA"] * 1_500

    prepared = prepare(build(change=new_carrier_after_training), "delays", problem, section())
    (carrier,) = [c for c in prepared.encoding.columns if c.name == "carrier"]
    assert carrier.categories == [f"C{i}" for i in range(6)]
    late = prepared.validation.inputs[:, prepared.encoding.names.index("carrier")]
    assert np.isnan(late[-1])
    assert not np.isnan(prepared.training.inputs[:, prepared.encoding.names.index("carrier")]).any()


def test_holdout_rows_do_not_touch_what_is_learned(build: Build, problem: Problem, section: Section) -> None:
    first = prepare(build("first"), "delays", problem, section())
    holdout_from = first.split.holdout_from

    def spoil(values: dict[str, Any]) -> None:
        for row, instant in enumerate(values["event_timestamp"]):
            if instant >= holdout_from:
                values["delay"][row], values["dest"][row] = -1e9, "new"
                if values["target"][row] is not None:
                    values["target"][row] = 1.0 - values["target"][row]

    second = prepare(build("second", change=spoil), "delays", problem, section())
    assert second.encoding == first.encoding
    for one, other in ((first.training, second.training), (first.validation, second.validation)):
        assert np.array_equal(one.inputs, other.inputs, equal_nan=True)
        assert np.array_equal(one.labels, other.labels)


def one_class(values: dict[str, Any]) -> None:
    values["target"] = [None if v is None else 1.0 for v in values["target"]]


def three_classes(values: dict[str, Any]) -> None:
    values["target"] = [None if v is None else float(i % 3) for i, v in enumerate(values["target"])]


def no_labels(values: dict[str, Any]) -> None:
    values["target"] = [None] * len(values["target"])


def all_null(values: dict[str, Any]) -> None:
    values["wind"] = [None] * len(values["wind"])


def all_nan(values: dict[str, Any]) -> None:
    values["wind"] = [float("nan")] * len(values["wind"])


def null_categories(values: dict[str, Any]) -> None:
    values["dest"] = [None] * len(values["dest"])


def infinite(values: dict[str, Any]) -> None:
    values["delay"][7] = float("-inf")


def too_large(values: dict[str, Any]) -> None:
    values["delay"][7] = 1e39


def not_a_number(values: dict[str, Any]) -> None:
    values["target"][7] = float("nan")


def known_never(values: dict[str, Any]) -> None:
    values["label_timestamp"][7] = None


@pytest.mark.parametrize(
    ("change", "message", "measured"),
    [
        (one_class, "training part does not hold the two classes", "1"),
        (three_classes, "does not hold the two classes", "0, 1, 2"),
        (no_labels, "no labelled rows", "0"),
        (all_null, "no value in any training row", "wind"),
        (all_nan, "no value in any training row", "wind"),
        (null_categories, "no value in any training row", "dest"),
        (infinite, "infinite numbers", "delay"),
        (too_large, "infinite numbers", "delay"),
        (not_a_number, "labels are infinite or not a number", "1 rows"),
        (known_never, "without the instant at which they became known", "1 rows"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_that_cannot_be_learned_from_are_refused(
    build: Build,
    problem: Problem,
    section: Section,
    change: Callable[[dict[str, Any]], None],
    message: str,
    measured: str,
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare(build(change=change), "delays", problem, section())
    assert str(caught.value.measured) == measured


@pytest.mark.parametrize(
    ("changes", "part"), [({"holdout_days": 200}, "training"), ({"validation_days": 120}, "training")]
)
def test_lengths_that_leave_nothing_are_refused(
    build: Build, problem: Problem, section: Section, changes: dict[str, int], part: str
) -> None:
    with pytest.raises(DataError, match=f"the {part} part has no rows"):
        prepare(build(), "delays", problem, section(**changes))


def test_changed_files_and_other_problems_are_refused(build: Build, problem: Problem, section: Section) -> None:
    folder = build()
    with pytest.raises(DataError, match="another problem"):
        prepare(folder, "trains", problem, section())
    with pytest.raises(DataError, match="another problem"):
        prepare(folder, "delays", problem.model_copy(update={"label": "other"}), section())
    rows = folder / ROWS
    rows.write_bytes(rows.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="changed after it was written"):
        prepare(folder, "delays", problem, section())
