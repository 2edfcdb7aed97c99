"""The verb: bundle, registry, retries and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core import tracking
from components.core.bundle import GOLDEN, ModelCard, load_predictor, read_card, read_encoding
from components.core.errors import ConfigError, StorageFailed, TrainingFailed
from components.core.sections import Problem, Train
from components.core.settings import Settings
from components.core.training_set import read_manifest
from components.train.export import parity_error
from components.train.fit import fit
from components.train.rows import prepare
from components.train.trainer import Job, fit_once

Build = Callable[..., Path]
Section = Callable[..., Train]
REPOSITORY = Path(__file__).parents[3]
KINDS = ["xgboost", pytest.param("torch_tabular", marks=pytest.mark.torch)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_bundle_is_whole_and_serves_what_the_native_model_predicts(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path, kind: str, task: str
) -> None:
    training_set, bundle = build(task=task), tmp_path / "out" / "model"
    problem = problem.model_copy(update={"task": task})
    card = fit(
        settings, use_case="delays", problem=problem, config=section(kind), training_set=training_set, bundle=bundle
    )
    assert read_card(bundle) == card
    native = {"xgboost": "model.ubj", "torch_tabular": "model.safetensors"}[kind]
    assert sorted(p.name for p in bundle.iterdir()) == sorted(
        ["encoding.json", "golden.parquet", "model.json", "model.onnx", "profile.json", "reference.parquet", native]
    )
    golden = pq.read_table(bundle / GOLDEN)
    encoding = read_encoding(bundle)
    expected = golden.column("prediction").to_numpy()
    raw = {name: golden.column(name).to_pylist() for name in encoding.names}
    served = load_predictor(bundle).predict(encoding.encode(raw, golden.num_rows))
    assert np.max(np.abs(served - expected) / np.maximum(1, np.abs(expected))) <= 1e-6
    assert np.std(expected) > 0
    described = read_manifest(training_set)
    assert (card.training_set, card.snapshot, card.registry) == (
        described.digest,
        described.snapshot,
        described.registry,
    )
    assert card.first < card.last < card.holdout_from
    assert card.device == "cpu"
    assert card.notes == []
    assert card.validation.keys() == ({"logloss", "auc"} if task == "classification" else {"rmse", "mae"})
    assert [p for p in bundle.parent.iterdir() if p != bundle] == []


def test_golden_rows_are_spread_over_the_newest_days(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path
) -> None:
    training_set, bundle = build(rows=40_000), tmp_path / "model"
    config = section(trainer={"rounds": 3})
    fit(settings, use_case="delays", problem=problem, config=config, training_set=training_set, bundle=bundle)
    golden = pq.read_table(bundle / GOLDEN)
    newest = prepare(training_set, "delays", problem, config).table.column("event_timestamp").to_pylist()[-1]
    instants = golden.column("event_timestamp").to_pylist()
    assert golden.num_rows == 1_000
    assert golden.column_names[:3] == ["flight_id", "carrier", "dest"]
    assert max(instants) == newest
    assert newest - timedelta(days=7) <= min(instants) < newest - timedelta(days=6, hours=20)
    assert {(newest - instant).days for instant in instants} >= set(range(7))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_model_and_another_version(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path, kind: str
) -> None:
    training_set = build()

    def train(run_key: str) -> ModelCard:
        return fit(
            settings.model_copy(update={"run_key": f"{settings.run_key}-{run_key}"}),
            use_case="delays",
            problem=problem,
            config=section(kind),
            training_set=training_set,
            bundle=tmp_path / run_key,
        )

    first, second = train("a"), train("b")
    assert second.model == first.model
    assert second.version != first.version
    assert second.validation == first.validation


def test_a_retry_gets_the_same_version_and_another_section_is_refused(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path
) -> None:
    training_set, bundle = build(), tmp_path / "model"

    def train(config: Train) -> ModelCard:
        return fit(
            settings, use_case="delays", problem=problem, config=config, training_set=training_set, bundle=bundle
        )

    first = train(section())
    again = train(section())
    assert (again.version, again.mlflow_run, again.model) == (first.version, first.mlflow_run, first.model)
    with pytest.raises(ConfigError, match="already used with other training parameters") as caught:
        train(section(trainer={"max_depth": 3}))
    assert caught.value.measured == "trainer.max_depth=3"
    assert read_card(bundle) == again
    assert not list(settings.checkpoints.glob(f"{settings.run_key}/train/*"))


def test_the_run_and_the_stored_bundle_can_be_found_again(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    training_set, bundle = build(), tmp_path / "model"
    card = fit(settings, use_case="delays", problem=problem, config=section(), training_set=training_set, bundle=bundle)
    fetched = tracking.download_bundle(settings, "delays", card.version, tmp_path / "fetched")
    assert {p.name: p.read_bytes() for p in fetched.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}
    run = MlflowClient(settings.mlflow_uri).get_run(card.mlflow_run)
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.max_depth"] == "4"
    assert run.data.metrics["validation_auc"] == pytest.approx(card.validation["auc"])
    assert run.data.metrics["export_parity_error"] <= 1e-6
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == card.training_set[:36]
    curve = MlflowClient(settings.mlflow_uri).get_metric_history(card.mlflow_run, "curve_logloss")
    assert min(m.value for m in curve) == pytest.approx(card.validation["logloss"], abs=1e-5)


PROGRAM = """
import json, sys
from kfp.dsl import Dataset, Metrics, Model
from components.train.component import train

given = json.loads(sys.argv[1])
train.python_func(
    use_case="delays",
    problem=given["problem"],
    config=given["config"],
    training_set=Dataset(uri=given["training_set"]),
    model=Model(uri=given["bundle"]),
    metrics=Metrics(uri=given["bundle"] + "-metrics"),
)
"""


def start_step(
    settings: Settings, problem: Problem, config: Train, training_set: Path, bundle: Path
) -> subprocess.Popen:
    """Run the component's own function in a process of its own."""
    given = {
        "problem": problem.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "training_set": str(training_set),
        "bundle": str(bundle),
    }
    environment = {"DRIFTLINE_HOME": str(settings.home), "DRIFTLINE_RUN_KEY": settings.run_key}
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("xgboost", "training"),
        pytest.param("xgboost", "writing", marks=pytest.mark.slow),
        pytest.param("torch_tabular", "training", marks=[pytest.mark.slow, pytest.mark.torch]),
        pytest.param("torch_tabular", "writing", marks=[pytest.mark.slow, pytest.mark.torch]),
    ],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_model_and_one_version(
    build: Build,
    problem: Problem,
    section: Section,
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    moment: str,
) -> None:
    trainer = {
        "xgboost": {"rounds": 120, "early_stopping_rounds": 120, "subsample": 0.8},
        "torch_tabular": {"epochs": 40, "patience_epochs": 40},
    }[kind]
    config = section(kind, trainer=trainer, checkpoint_every={"xgboost": 10, "torch_tabular": 2}[kind])
    training_set, bundle = build(), tmp_path / "killed" / "model"
    checkpoints = settings.checkpoints / settings.run_key / "train"
    process = start_step(settings, problem, config, training_set, bundle)
    seen = {"training": lambda: bool(list(checkpoints.glob("*.checkpoint"))), "writing": bundle.parent.exists}
    kill_when(process, seen[moment])
    assert not bundle.exists()
    assert len(list(checkpoints.glob("*.checkpoint"))) == 1

    def train(settings: Settings, bundle: Path) -> ModelCard:
        return fit(
            settings, use_case="delays", problem=problem, config=config, training_set=training_set, bundle=bundle
        )

    with caplog.at_level("INFO"):
        resumed = train(settings, bundle)
    assert "resuming at" in caplog.text
    whole = train(settings.model_copy(update={"run_key": f"{settings.run_key}-whole"}), tmp_path / "whole")
    assert resumed.model == whole.model
    assert resumed.version < whole.version
    assert not checkpoints.exists()
    assert [p.name for p in bundle.parent.iterdir()] == ["model"]
    assert tracking.register_version(settings, "delays", resumed.mlflow_run) == resumed.version


def test_a_changed_section_or_training_set_resumes_nothing(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path
) -> None:
    from components.train.fit import _checkpoint

    first, other = (
        prepare(build("one"), "delays", problem, section()),
        prepare(build("two", seed=2), "delays", problem, section()),
    )
    paths = {
        _checkpoint(settings, first, problem, section()),
        _checkpoint(settings, other, problem, section()),
        _checkpoint(settings, first, problem, section(seed=8)),
        _checkpoint(settings, first, problem, section(trainer={"max_depth": 5})),
        _checkpoint(settings, first, problem.model_copy(update={"task": "regression"}), section()),
        _checkpoint(settings.model_copy(update={"run_key": "other"}), first, problem, section()),
    }
    assert len(paths) == 6
    assert _checkpoint(settings, first, problem, section()) in paths


@pytest.mark.parametrize("run_key", ["", "../up", "a b", "x'; --", "-", "a" * 129])
def test_an_unusable_run_key_is_refused_before_training(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path, run_key: str
) -> None:
    with pytest.raises(ConfigError, match="no usable key") as caught:
        fit(
            settings.model_copy(update={"run_key": run_key}),
            use_case="delays",
            problem=problem,
            config=section(),
            training_set=build(rows=1_000),
            bundle=tmp_path / "model",
        )
    assert "DRIFTLINE_RUN_KEY" in caught.value.next_step
    assert not (tmp_path / "model").exists()


def test_a_graph_that_differs_from_its_model_is_refused(build: Build, problem: Problem, section: Section) -> None:
    """Two really trained models, each with the other's graph."""
    import onnxruntime

    from components.core.bundle import Predictor

    prepared = prepare(build(rows=2_000), "delays", problem, section())

    def train(depth: int) -> tuple[object, Predictor]:
        config = section(trainer={"max_depth": depth, "rounds": 5})
        fitted = fit_once(Job(problem.task, prepared.encoding, prepared.training, prepared.validation, config))
        return fitted, Predictor(onnxruntime.InferenceSession(fitted.graph().SerializeToString()))

    (first, first_graph), (_, other_graph) = train(4), train(2)
    inputs = prepared.validation.inputs
    assert parity_error(first, first_graph, inputs) <= 1e-6
    with pytest.raises(TrainingFailed, match="does not predict what the trained model predicts"):
        parity_error(first, other_graph, inputs)


def test_an_unwritable_bundle_folder_is_a_storage_error_and_registers_nothing(
    build: Build, problem: Problem, section: Section, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageFailed, match="cannot write"):
        fit(
            settings,
            use_case="delays",
            problem=problem,
            config=section(),
            training_set=build(rows=2_000),
            bundle=tmp_path / "file" / "model",
        )
    run_id = tracking.start_run(settings, "delays", settings.run_key)
    from mlflow import MlflowClient

    assert MlflowClient(settings.mlflow_uri).search_model_versions(f"run_id = '{run_id}'") == []
