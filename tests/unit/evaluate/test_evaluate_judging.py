"""The whole judgement: good, bad and broken models, and data that cannot tell."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.core.bundle import ENCODING
from components.core.errors import ConfigError, DataError
from components.core.sections import Evaluate, Fairness
from components.core.verdict import read_verdict
from components.evaluate.judging import Judgement, judge
from components.evaluate.step import curves, scalar_metrics, write_judgement

CONFIG = Evaluate(
    margin=0.01,
    min_rows=1000,
    slices=["origin", "hour"],
    min_slice_rows=200,
    fairness=Fairness(groups=["origin"]),
    bootstrap_samples=200,
)


@pytest.fixture
def finish(case: SimpleNamespace, tmp_path: Path) -> Callable[..., Judgement]:
    """Judge and write all files, as the step does; return the judgement with the verdict that was written."""

    def run(
        bundle: Path,
        training_set: Path,
        champion: Path | None = None,
        config: Evaluate = CONFIG,
        task: str = "classification",
    ) -> Judgement:
        problem = case.TASKS[task]
        found = judge(problem, config, bundle, training_set, champion, 1 if champion else 0)
        paths = {name: tmp_path / "out" / name for name in ("verdict", "report", "card")}
        written = write_judgement("flights", problem, config, found, **paths)
        assert read_verdict(paths["verdict"]).model_dump(mode="json") == written.model_dump(mode="json")
        assert "NaN" not in paths["verdict"].read_text()
        assert paths["report"].read_text().startswith("<!doctype html>")
        assert paths["card"].read_text().startswith("# flights, version 2")
        assert all(np.isfinite(v) for v in scalar_metrics(found.measurements).values())
        curves(problem, found)
        return found

    return run


def words(judgement: Judgement) -> str:
    return " | ".join(r.message for r in judgement.verdict.reasons if not r.passed)


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array(values))


def test_a_good_first_model_is_promoted(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(), training_set(rows))
    assert found.verdict.decision == "promote"
    assert found.verdict.subject == found.card.model
    assert found.measurements.champion is None
    assert (found.measurements.rows, found.measurements.days) == (1680, 21)
    assert found.measurements.slices is not None
    assert len(found.measurements.slices.slices) == 7


def test_the_same_files_give_the_same_judgement(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    tmp_path: Path,
) -> None:
    new, data = bundle(), training_set(rows)
    first = finish(new, data)
    texts = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert finish(new, data).measurements == first.measurements
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == texts


def test_a_better_challenger_replaces_the_champion_and_a_worse_one_does_not(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    case: SimpleNamespace,
) -> None:
    weak = bundle("weak", {**case.GOOD, "delay": 0.03, "noise": 0.6}, -2.4)
    good, data = bundle("good"), training_set(rows)
    upward = finish(good, data, weak)
    assert upward.verdict.decision == "promote"
    assert upward.measurements.gain.low is not None
    assert upward.measurements.gain.low > 0.02
    downward = finish(weak, data, good)
    assert downward.verdict.decision == "reject"
    assert "worse than allowed" in words(downward)
    assert downward.measurements.gain.estimate == pytest.approx(-(upward.measurements.gain.estimate or 0))


def test_the_champion_again_has_nothing_to_gain_without_margin(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(), training_set(rows), bundle("champion"), CONFIG.model_copy(update={"margin": 0.0}))
    assert found.verdict.decision == "hold"
    assert found.measurements.gain.model_dump() == {"estimate": 0.0, "low": 0.0, "high": 0.0}


def test_a_champion_that_needs_other_inputs_is_not_compared(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    case: SimpleNamespace,
) -> None:
    champion = bundle("champion", {**case.GOOD, "humidity": 0.1})
    found = finish(bundle(), training_set(rows), champion)
    assert found.verdict.decision == "hold"
    assert "the training set lacks humidity, which the champion needs" in words(found)
    assert found.measurements.champion is not None
    assert found.measurements.champion.removed_inputs == ["humidity"]
    assert found.measurements.slices is not None
    assert found.measurements.slices.reference == "logistic regression on the request inputs"


def test_an_input_whose_kind_changed_counts_as_missing(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(), training_set(rows), bundle("champion", categories=["origin", "hour"]))
    assert found.verdict.decision == "hold"
    assert "the training set lacks hour, which the champion needs" in words(found)


def test_a_champion_that_was_tampered_with_is_an_error_not_a_verdict(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    champion = bundle("champion")
    (champion / ENCODING).write_text((champion / ENCODING).read_text().replace("EWR", "ABC"))
    with pytest.raises(DataError, match="not the one its card describes"):
        finish(bundle(), training_set(rows), champion)


def test_rows_that_the_champion_was_trained_on_are_left_out(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    case: SimpleNamespace,
) -> None:
    later = case.HOLDOUT_FROM + timedelta(days=6)
    found = finish(bundle(), training_set(rows), bundle("champion", holdout_from=later))
    assert (found.holdout.dates[0], found.measurements.days) == ("2013-02-26", 15)
    assert any("the champion was trained on earlier days" in r.message for r in found.verdict.reasons)


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        ({"hour": 0.0, "delay": 0.0}, -1.0, "predicts 0.268941 for every row"),
        ({"hour": float("nan"), "delay": 0.0}, 0.0, "values that are not finite, for 1,680 of 1,680 rows"),
    ],
)
def test_broken_predictions_are_rejected(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    weights: dict[str, float],
    bias: float,
    message: str,
) -> None:
    found = finish(bundle(weights=weights, bias=bias), training_set(rows))
    assert found.verdict.decision == "reject"
    assert message in words(found)


def test_probabilities_outside_zero_and_one_are_rejected(
    finish: Callable[..., Judgement],
    case: SimpleNamespace,
    tmp_path: Path,
    training_set: Callable[..., Path],
    rows: pa.Table,
) -> None:
    case.write_bundle(tmp_path / "bundle", {"hour": 1.0, "delay": 1.0}, 0.0, task="regression")
    found = finish(tmp_path / "bundle", training_set(rows))
    assert found.verdict.decision == "reject"
    assert "outside [0, 1]" in words(found)


def test_a_broken_champion_holds(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(), training_set(rows), bundle("champion", {"hour": float("nan")}))
    assert found.verdict.decision == "hold"
    assert "the champion predicts values that are not finite" in words(found)


def test_a_model_of_noise_is_not_better_than_the_baseline(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(weights={"noise": 1.0}, bias=-1.0), training_set(rows))
    assert found.verdict.decision == "reject"
    assert "not better than the logistic regression" in words(found)


def test_a_holdout_of_one_class_cannot_tell(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    case: SimpleNamespace,
) -> None:
    held = pc.greater_equal(rows.column("event_timestamp"), pa.scalar(case.HOLDOUT_FROM, pa.timestamp("us", "UTC")))
    calm = with_column(rows, "late", np.where(held.to_numpy(), 0.0, rows.column("late").to_numpy()))
    found = finish(bundle(), training_set(calm), bundle("champion"))
    assert found.verdict.decision == "hold"
    assert "AUC or its interval is not defined on this holdout" in words(found)


@pytest.mark.parametrize("kept", ["day", "few", "none"])
def test_too_little_holdout_cannot_tell(
    finish: Callable[..., Judgement],
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    kept: str,
) -> None:
    count = rows.num_rows
    chosen = {
        "day": rows.slice(0, count - 20 * 80),
        "few": pa.concat_tables([rows.slice(0, count - 1680), rows.slice(count - 9)]),
        "none": rows.slice(0, count - 1680),
    }[kept]
    found = finish(bundle(), training_set(chosen), bundle("champion"))
    assert found.verdict.decision == "hold"
    assert "too little to tell" in words(found)


def test_an_empty_past_has_no_baseline_and_cannot_tell(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    found = finish(bundle(), training_set(rows.slice(rows.num_rows - 1680)))
    assert found.verdict.decision == "hold"
    assert found.measurements.baseline is None
    assert "cannot compare with the baseline" in words(found)


def test_rows_without_labels_are_named(
    finish: Callable[..., Judgement], bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    labels = rows.column("late").to_numpy().copy()
    labels[-30:] = np.nan
    found = finish(bundle(), training_set(with_column(rows, "late", labels)))
    assert any(r.message == "30 rows of the holdout have no label and were left out" for r in found.verdict.reasons)


def test_a_regression_is_judged_in_units_of_its_label(
    finish: Callable[..., Judgement],
    case: SimpleNamespace,
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
) -> None:
    config = CONFIG.model_copy(update={"metric": "rmse", "margin": 0.1, "max_calibration_error": 0.1})
    weights = {"origin": 0.0, "hour": 0.6, "delay": 0.9, "noise": 0.0}
    good = bundle("good", weights, -32.0, task="regression")
    weak = bundle("weak", {**weights, "noise": 9.0}, -32.0, task="regression")
    data = training_set(rows, "regression")
    found = finish(good, data, weak, config, "regression")
    assert found.verdict.decision == "promote"
    assert found.measurements.challenger is not None
    assert set(found.measurements.challenger.metrics) == {"rmse", "mae", "r2"}
    assert found.measurements.gain.low is not None
    assert found.measurements.gain.low > 0
    assert curves(case.TASKS["regression"], found) == {}
    assert finish(weak, data, good, config, "regression").verdict.decision == "reject"


def test_a_regression_with_the_default_metric_is_a_configuration_error(
    case: SimpleNamespace, bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.metric does not fit a regression"):
        judge(case.TASKS["regression"], CONFIG, bundle(), training_set(rows, "regression"))


@pytest.mark.parametrize(
    "change", [{"slices": ["airline"]}, {"fairness": Fairness(groups=["airline"])}], ids=["slices", "fairness"]
)
def test_unknown_columns_are_configuration_errors(
    case: SimpleNamespace,
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
    rows: pa.Table,
    change: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match="names columns that the training set lacks; measured: airline"):
        judge(case.TASKS["classification"], CONFIG.model_copy(update=change), bundle(), training_set(rows))


@pytest.mark.slow
def test_twenty_thousand_rows_cost_less_than_ten_seconds_of_cpu(
    finish: Callable[..., Judgement],
    case: SimpleNamespace,
    bundle: Callable[..., Path],
    training_set: Callable[..., Path],
) -> None:
    new, old, data = bundle(), bundle("champion"), training_set(case.make_rows(per_day=1000))
    finish(new, data, old)  # imports
    start = time.process_time()
    found = finish(new, data, old)
    assert found.measurements.rows == 21_000
    assert time.process_time() - start < 10
