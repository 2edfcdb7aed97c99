"""Boosting: resuming, early stopping, refusal of a silent CPU run; the graph against onnxmltools."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.core.errors import TrainingFailed
from components.core.sections import Problem, Train, XGBoost
from components.train import xgb
from components.train.rows import prepare
from components.train.trainer import Job

Build = Callable[..., Path]
Section = Callable[..., Train]


@pytest.fixture
def job(build: Build, problem: Problem, section: Section) -> Job:
    config = section()
    prepared = prepare(build(rows=3_000), "delays", problem, config)
    return Job(problem.task, prepared.encoding, prepared.training, prepared.validation, config)


def raw(fitted: xgb.FittedTrees) -> bytes:
    return bytes(fitted.booster.save_raw("ubj"))


@pytest.mark.parametrize("sampling", [{}, {"subsample": 0.6, "colsample_bytree": 0.5}], ids=["all rows", "sampling"])
@pytest.mark.parametrize("rounds_before", [10, 20, 30])
def test_a_resumed_training_equals_an_uninterrupted_one(
    job: Job, tmp_path: Path, section: Section, sampling: dict[str, float], rounds_before: int
) -> None:
    whole = xgb.train(replace(job, config=section(trainer=sampling)))
    checkpoint = tmp_path / "checkpoint"
    xgb.train(replace(job, config=section(trainer={**sampling, "rounds": rounds_before}), checkpoint=checkpoint))
    resumed = xgb.train(replace(job, config=section(trainer=sampling), checkpoint=checkpoint))
    assert len(whole.curve) > rounds_before
    assert resumed.curve == whole.curve
    assert raw(resumed) == raw(whole)


def test_sampling_draws_new_rows_in_every_chunk(job: Job, section: Section) -> None:
    fitted = xgb.train(replace(job, config=section(trainer={"subsample": 0.5, "rounds": 20, "learning_rate": 0.01})))
    trees = fitted.booster.get_dump()
    assert len(trees) == 20
    assert trees[10] != trees[0]


def test_early_stopping_equals_xgboosts_own(job: Job, section: Section) -> None:
    import xgboost

    settings = {"rounds": 300, "early_stopping_rounds": 7, "learning_rate": 0.3}
    fitted = xgb.train(replace(job, config=section(trainer=settings, checkpoint_every=4)))
    options = {"feature_types": fitted.feature_types, "enable_categorical": True}
    training = xgboost.QuantileDMatrix(job.training.inputs, job.training.labels, **options)
    validation = xgboost.QuantileDMatrix(job.validation.inputs, job.validation.labels, ref=training, **options)
    config = section(trainer=settings)
    assert isinstance(config.trainer, XGBoost)
    oracle = xgboost.train(
        xgb._parameters("classification", config, config.trainer, first_round=0),
        training,
        num_boost_round=300,
        evals=[(validation, "validation")],
        early_stopping_rounds=7,
        verbose_eval=False,
    )
    assert len(fitted.curve) < 300
    assert fitted.booster.num_boosted_rounds() == oracle.best_iteration + 1
    assert fitted.booster.get_dump() == oracle[: oracle.best_iteration + 1].get_dump()


def test_another_seed_changes_a_sampled_model_only(job: Job, section: Section) -> None:
    def dump(seed: int, subsample: float) -> list[str]:
        config = section(trainer={"subsample": subsample, "rounds": 5}, seed=seed)
        return list(xgb.train(replace(job, config=config)).booster.get_dump())

    assert dump(1, 0.5) != dump(2, 0.5)
    assert dump(1, 1.0) == dump(2, 1.0)


def test_cuda_without_a_gpu_is_refused_in_the_first_round(job: Job, section: Section, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    with (
        pytest.warns(UserWarning, match="changed from GPU to CPU"),
        pytest.raises(TrainingFailed, match="does not train on the requested device") as caught,
    ):
        xgb.train(replace(job, config=section(device="cuda"), checkpoint=checkpoint))
    assert (caught.value.measured, caught.value.allowed) == ("cpu", "cuda")
    assert not checkpoint.exists()


def test_a_damaged_checkpoint_is_ignored_with_a_warning(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """XGBoost itself would abort the process on half a file."""
    checkpoint = tmp_path / "checkpoint"
    whole = xgb.train(replace(job, checkpoint=checkpoint))
    good = checkpoint.read_bytes()
    for content in (good[:5_000], b"", b"{}", good[:-1] + b"x"):
        checkpoint.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = xgb.train(replace(job, checkpoint=checkpoint))
        assert "is damaged" in caplog.text
        assert raw(again) == raw(whole)


def test_the_model_keeps_nothing_of_its_making(job: Job, tmp_path: Path) -> None:
    fitted = xgb.train(job)
    fitted.save(tmp_path / "model.ubj")
    import xgboost

    loaded = xgboost.Booster(model_file=tmp_path / "model.ubj")
    assert loaded.attributes() == {}
    matrix = xgboost.DMatrix(job.validation.inputs, feature_types=fitted.feature_types, enable_categorical=True)
    assert np.array_equal(loaded.predict(matrix), fitted.predict(job.validation.inputs))
    assert fitted.booster.num_boosted_rounds() == int(np.argmin(fitted.curve)) + 1


def test_the_graph_agrees_with_onnxmltools(job: Job) -> None:
    """An independent converter; it knows no set membership, so the inputs here are numbers only."""
    import onnxruntime
    import xgboost
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    from components.train.tree_graph import tree_graph

    numbers = [i for i, column in enumerate(job.encoding.columns) if column.kind == "number"]
    inputs = job.training.inputs[:, numbers]
    training = xgboost.QuantileDMatrix(inputs, job.training.labels)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 5}, training, num_boost_round=30)
    theirs = convert_xgboost(booster, initial_types=[("inputs", FloatTensorType([None, len(numbers)]))])
    ours = tree_graph(booster, width=len(numbers), logistic=True)
    (probabilities,) = onnxruntime.InferenceSession(theirs.SerializeToString()).run(
        ["probabilities"], {"inputs": inputs}
    )
    (found,) = onnxruntime.InferenceSession(ours.SerializeToString()).run(["prediction"], {"inputs": inputs})
    assert np.max(np.abs(found[:, 0] - probabilities[:, 1])) <= 1e-6


def test_the_device_is_what_xgboost_says(job: Job) -> None:
    fitted = xgb.train(job)
    assert fitted.device == json.loads(fitted.booster.save_config())["learner"]["generic_param"]["device"] == "cpu"
