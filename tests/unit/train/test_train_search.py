"""The search: never worse, resumable after a kill, blind to the holdout."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConfigError
from components.core.sections import Problem, Train, Tune
from components.core.settings import Settings
from components.train.rows import prepare
from components.train.search import search
from components.train.trainer import Job, fit_once

Build = Callable[..., Path]
Section = Callable[..., Train]
REPOSITORY = Path(__file__).parents[3]
SPACE = {"max_depth": [2, 8], "learning_rate": [0.02, 0.5], "subsample": [0.5, 1.0]}


def tune(trials: int = 4, **changes: Any) -> Tune:
    return Tune.model_validate({"enabled": True, "trials": trials, "space": SPACE} | changes)


def trials_of(settings: Settings) -> list[tuple[dict[str, Any], float]]:
    import optuna

    storage = f"sqlite:///{settings.checkpoints / settings.run_key / 'tune.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    return [(trial.params, trial.value) for trial in trials if trial.state.name == "COMPLETE"]


def loss(training_set: Path, problem: Problem, config: Train) -> float:
    prepared = prepare(training_set, "delays", problem, config)
    return min(fit_once(Job(problem.task, prepared.encoding, prepared.training, prepared.validation, config)).curve)


def test_the_result_is_the_best_trial_and_never_worse_than_the_given_section(
    build: Build, problem: Problem, section: Section, settings: Settings
) -> None:
    training_set = build(rows=3_000)
    given = section(trainer={"learning_rate": 0.5, "max_depth": 8})
    best = search(settings, use_case="delays", problem=problem, train=given, config=tune(8), training_set=training_set)
    finished = trials_of(settings)
    assert len(finished) == 8
    assert finished[0][0] == {"learning_rate": 0.5, "max_depth": 8, "subsample": 1.0}
    assert finished[0][1] == pytest.approx(loss(training_set, problem, given))
    assert loss(training_set, problem, best) == pytest.approx(min(value for _, value in finished))
    assert loss(training_set, problem, best) < finished[0][1]
    changed = {key for key, value in best.trainer.model_dump().items() if value != getattr(given.trainer, key)}
    assert changed <= set(SPACE)
    assert best.model_copy(update={"trainer": given.trainer}) == given
    for parameters, _ in finished:
        assert all(low <= parameters[name] <= high for name, (low, high) in SPACE.items())
        assert isinstance(parameters["max_depth"], int)


def test_asking_again_trains_nothing_and_more_trials_continue(
    build: Build, problem: Problem, section: Section, settings: Settings
) -> None:
    training_set = build(rows=2_000)

    def run(trials: int) -> Train:
        return search(
            settings,
            use_case="delays",
            problem=problem,
            train=section(),
            config=tune(trials),
            training_set=training_set,
        )

    first = run(3)
    before = trials_of(settings)
    assert run(3) == first
    assert trials_of(settings) == before
    run(5)
    assert trials_of(settings)[:3] == before
    assert len(trials_of(settings)) == 5


def test_the_holdout_is_never_looked_at(build: Build, problem: Problem, section: Section, settings: Settings) -> None:
    clean = build("clean", rows=2_000)
    holdout_from = prepare(clean, "delays", problem, section()).split.holdout_from

    def spoil(values: dict[str, Any]) -> None:
        for row, instant in enumerate(values["event_timestamp"]):
            if instant >= holdout_from:
                values["delay"][row], values["wind"][row], values["carrier"][row] = 1e30, None, "stranger"
                if values["target"][row] is not None:
                    values["target"][row] = 1.0 - values["target"][row]

    outcomes = []
    for name, training_set in (("clean", clean), ("spoiled", build("spoiled", rows=2_000, change=spoil))):
        own = settings.model_copy(update={"run_key": f"{settings.run_key}-{name}"})
        found = search(
            own, use_case="delays", problem=problem, train=section(), config=tune(), training_set=training_set
        )
        outcomes.append((found, trials_of(own)))
    assert outcomes[0] == outcomes[1]


def test_the_time_limit_ends_the_search(build: Build, problem: Problem, section: Section, settings: Settings) -> None:
    slow = section(trainer={"rounds": 400, "early_stopping_rounds": 400})
    config = tune(10_000, timeout_seconds=1)
    started = time.monotonic()
    search(settings, use_case="delays", problem=problem, train=slow, config=config, training_set=build())
    assert 2 <= len(trials_of(settings)) < 10_000
    assert time.monotonic() - started < 120


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space is empty"),
        ({"depth": [1, 2]}, "tune.space.depth is no number of the trainer xgboost"),
        ({"kind": [1, 2]}, "tune.space.kind is no number"),
        ({"max_depth": [5, 8]}, r"around the given value, which is the first trial"),
        ({"max_depth": [4]}, r"must be \[low, high\]"),
        ({"learning_rate": [0.2, 1.5]}, "leaves what the trainer accepts.*learning_rate"),
        ({"max_depth": [2.5, 8]}, "leaves what the trainer accepts.*max_depth"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_any_training(
    build: Build, problem: Problem, section: Section, settings: Settings, space: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(
            settings,
            use_case="delays",
            problem=problem,
            train=section(),
            config=tune(space=space),
            training_set=build(rows=1_000),
        )
    assert not (settings.checkpoints / settings.run_key / "tune.db").exists()


PROGRAM = """
import json, sys
from kfp.dsl import Dataset
from components.train.tune_component import tune

given = json.loads(sys.argv[1])
print(json.dumps(tune.python_func(use_case="delays", training_set=Dataset(uri=given.pop("training_set")), **given)))
"""


def start_step(
    settings: Settings, problem: Problem, train: Train, config: Tune, training_set: Path
) -> subprocess.Popen[str]:
    given = {"problem": problem.model_dump(mode="json"), "train": train.model_dump(mode="json")}
    given |= {"config": config.model_dump(mode="json"), "training_set": str(training_set)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        cwd=REPOSITORY,
        env=os.environ | {"DRIFTLINE_HOME": str(settings.home), "DRIFTLINE_RUN_KEY": settings.run_key},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def states(settings: Settings) -> list[str]:
    import sqlite3

    database = settings.checkpoints / settings.run_key / "tune.db"
    if not database.exists():
        return []
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM trials ORDER BY trial_id")]
    except sqlite3.OperationalError:
        return []


def test_a_killed_search_goes_on_and_ends_with_the_same_trials(
    build: Build, problem: Problem, section: Section, settings: Settings
) -> None:
    training_set = build()
    train, config = section(trainer={"rounds": 150, "early_stopping_rounds": 150}), tune(6)
    process = start_step(settings, problem, train, config, training_set)
    while not (len(found := states(settings)) >= 4 and found[-1] == "RUNNING"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert states(settings)[-1] == "RUNNING"

    given = {"use_case": "delays", "problem": problem, "train": train, "config": config, "training_set": training_set}
    resumed = search(settings, **given)
    whole_settings = settings.model_copy(update={"run_key": f"{settings.run_key}-whole"})
    assert resumed == search(whole_settings, **given)
    assert trials_of(settings) == trials_of(whole_settings)
    assert states(settings).count("FAIL") == 1


@pytest.mark.slow
def test_the_component_returns_a_section_that_train_accepts(
    build: Build, problem: Problem, section: Section, settings: Settings
) -> None:
    training_set = build(rows=2_000)
    process = start_step(settings, problem, section(), tune(3), training_set)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    returned = Train.model_validate(json.loads(output.splitlines()[-1]))
    assert returned == search(
        settings, use_case="delays", problem=problem, train=section(), config=tune(3), training_set=training_set
    )
