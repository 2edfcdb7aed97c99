"""The network: resuming, determinism, learning, refusal paths."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.core.errors import TrainingFailed
from components.core.sections import Problem, Train
from components.train import torch_tabular
from components.train.rows import prepare
from components.train.scores import scores
from components.train.trainer import Job

Build = Callable[..., Path]
Section = Callable[..., Train]
REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.torch


@pytest.fixture
def job(build: Build, problem: Problem, section: Section) -> Job:
    config = section("torch_tabular", checkpoint_every=1)
    prepared = prepare(build(rows=3_000), "delays", problem, config)
    return Job(problem.task, prepared.encoding, prepared.training, prepared.validation, config)


def same(first: torch_tabular.FittedNetwork, second: torch_tabular.FittedNetwork) -> bool:
    return first.curve == second.curve and all(
        np.array_equal(tensor.numpy(), second.weights[name].numpy()) for name, tensor in first.weights.items()
    )


@pytest.mark.parametrize("epochs_before", [1, 3])
def test_a_resumed_training_equals_an_uninterrupted_one(
    job: Job, tmp_path: Path, section: Section, epochs_before: int
) -> None:
    whole = torch_tabular.train(job)
    checkpoint = tmp_path / "checkpoint"
    short = section("torch_tabular", trainer={"epochs": epochs_before}, checkpoint_every=1)
    torch_tabular.train(replace(job, config=short, checkpoint=checkpoint))
    resumed = torch_tabular.train(replace(job, checkpoint=checkpoint))
    assert len(whole.curve) == 4
    assert same(resumed, whole)


def test_training_twice_gives_the_same_model_and_leaves_the_random_state_alone(job: Job) -> None:
    import torch

    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = torch_tabular.train(job)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(456)
    assert same(torch_tabular.train(job), first)
    other = replace(job, config=job.config.model_copy(update={"seed": 8}))
    assert not same(torch_tabular.train(other), first)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_learns_more_than_a_constant(build: Build, problem: Problem, section: Section, task: str) -> None:
    problem = problem.model_copy(update={"task": task})
    config = section("torch_tabular", trainer={"epochs": 12, "learning_rate": 0.01})
    prepared = prepare(build(task=task), "delays", problem, config)
    fitted = torch_tabular.train(Job(task, prepared.encoding, prepared.training, prepared.validation, config))
    found = scores(task, prepared.validation.labels, fitted.predict(prepared.validation.inputs))
    constant = np.full(len(prepared.validation.labels), prepared.training.labels.mean())
    name = "logloss" if task == "classification" else "rmse"
    assert found[name] < 0.93 * scores(task, prepared.validation.labels, constant)[name]
    assert found[name] == pytest.approx(min(fitted.curve))


def test_a_damaged_checkpoint_is_ignored_with_a_warning(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "checkpoint"
    whole = torch_tabular.train(replace(job, checkpoint=checkpoint))
    for content in (checkpoint.read_bytes()[:2_000], b""):
        checkpoint.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert same(torch_tabular.train(replace(job, checkpoint=checkpoint)), whole)
        assert "is damaged" in caplog.text


def test_the_saved_weights_are_the_model(job: Job, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    fitted = torch_tabular.train(job)
    fitted.save(tmp_path / fitted.native)
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == fitted.weights.keys()
    assert all(np.array_equal(loaded[name], tensor.numpy()) for name, tensor in fitted.weights.items())


def test_cuda_without_a_gpu_is_refused(job: Job, section: Section) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingFailed, match="finds no GPU"):
        torch_tabular.train(replace(job, config=section("torch_tabular", device="cuda")))


def test_a_diverging_training_is_an_error(job: Job, section: Section) -> None:
    wild = section("torch_tabular", trainer={"learning_rate": 1e30, "weight_decay": 1.0})
    with pytest.raises(TrainingFailed, match="not finite"):
        torch_tabular.train(replace(job, config=wild))


def test_a_missing_extra_names_what_to_install(tmp_path: Path) -> None:
    """A second site-packages without PyTorch, as an installation without the extra has it."""
    import torch

    site = tmp_path / "site-packages"
    site.mkdir()
    for entry in Path(torch.__file__).parents[1].iterdir():
        if not entry.name.startswith("torch"):
            (site / entry.name).symlink_to(entry)
    program = (
        "from components.core.errors import ConfigError\n"
        "from components.core.sections import Train\n"
        "from components.train.trainer import Job, fit_once\n"
        "config = Train.model_validate({'trainer': {'kind': 'torch_tabular'}})\n"
        "try:\n    fit_once(Job('classification', None, None, None, config))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(site)]), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs the extra torch" in ran.stdout
    assert "pip install 'driftline[torch]'" in ran.stdout
