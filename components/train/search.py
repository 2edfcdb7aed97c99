"""Hyperparameter search with Optuna in one step that a kill only delays.

A trial's suggestions depend on the seed, its number and the finished trials before it, so a search that was killed and
started again ends with the same study. The holdout is never encoded, let alone scored.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.digests import text_digest
from components.core.errors import ConfigError
from components.core.object_store import fetch, publish
from components.core.sections import Problem, Train, Tune
from components.core.settings import Settings, check_run_key
from components.core.usecase import explain
from components.train.provenance import training_key
from components.train.rows import Prepared, prepare
from components.train.trainer import Job, fit_once

log = logging.getLogger(__name__)

_LOGARITHMIC_FROM = 10.0
"""A range whose ends differ by this factor is searched on a logarithmic scale."""


def search(
    settings: Settings, *, use_case: str, problem: Problem, train: Train, config: Tune, training_set: Path
) -> Train:
    """Return the section `train` with the trainer parameters of the lowest validation loss.

    The given parameters are the first trial, so the result is never worse on the validation part. Ends after `trials`
    finished trials or `timeout_seconds` of trial time, restarts included. Raises ConfigError for a space that does not
    fit the trainer.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _distributions(train, config)
    prepared = prepare(training_set, use_case, problem, train)
    database = settings.checkpoints / check_run_key(settings.run_key) / "tune.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    fetch(settings, database, again=True)
    study = optuna.create_study(
        storage=f"sqlite:///{database}",
        study_name=training_key(prepared.description.digest, problem, train, space=config.space),
        direction="minimize",
        load_if_exists=True,
    )
    _fail_interrupted(study)
    while (done := len(_finished(study))) < config.trials and _seconds(study) < config.timeout_seconds:
        if done == 0:
            given = {name: getattr(train.trainer, name) for name in space}
            loss = _loss(prepared, problem, train)
            study.add_trial(optuna.trial.create_trial(params=given, distributions=space, value=loss))
        else:
            study.sampler = optuna.samplers.TPESampler(seed=int(text_digest(f"{train.seed}:{done}")[:7], 16))
            trial = study.ask(space)
            loss = _loss(prepared, problem, _with(train, trial.params))
            study.tell(trial, loss)
        publish(settings, database)
        log.info("trial %d of %d: loss %.5f, best %.5f", done + 1, config.trials, loss, study.best_value)
    return _with(train, study.best_params)


def _distributions(train: Train, config: Tune) -> dict[str, Any]:
    """Return the searched parameters; a range over a factor of ten is searched on a logarithmic scale.

    Raises ConfigError for an unknown parameter and for a range that the trainer does not accept or that leaves the
    given value out.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    if not config.space:
        raise ConfigError("tune.space is empty", next_step="name a trainer parameter and its [low, high]")
    kinds = type(train.trainer).model_fields
    searchable = [name for name, field in kinds.items() if field.annotation in (int, float)]
    space: dict[str, Any] = {}
    for name, bounds in config.space.items():
        if name not in searchable:
            raise ConfigError(
                f"tune.space.{name} is no number of the trainer {train.trainer.kind}",
                measured=name,
                allowed=", ".join(searchable),
            )
        given = getattr(train.trainer, name)
        if len(bounds) != 2 or not bounds[0] <= given <= bounds[1]:  # noqa: PLR2004 - a range has two ends
            raise ConfigError(
                f"tune.space.{name} must be [low, high] around the given value, which is the first trial",
                measured=bounds,
                allowed=f"low <= {given} <= high",
            )
        low, high = bounds
        for bound in bounds:
            _with(train, {name: bound})
        logarithmic = low > 0 and high / low >= _LOGARITHMIC_FROM
        if kinds[name].annotation is int:
            space[name] = IntDistribution(int(low), int(high), log=logarithmic)
        else:
            space[name] = FloatDistribution(low, high, log=logarithmic)
    return space


def _with(train: Train, parameters: dict[str, Any]) -> Train:
    """Return the section with other trainer parameters; raises ConfigError when the trainer refuses one."""
    section = train.model_dump()
    try:
        return Train.model_validate(section | {"trainer": section["trainer"] | parameters})
    except ValidationError as error:
        raise ConfigError(f"tune.space leaves what the trainer accepts: {explain(error, Train)}") from error


def _loss(prepared: Prepared, problem: Problem, train: Train) -> float:
    fitted = fit_once(Job(problem.task, prepared.encoding, prepared.training, prepared.validation, train))
    return min(fitted.curve)


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _seconds(study: Any) -> float:
    return float(sum(trial.duration.total_seconds() for trial in _finished(study)))


def _fail_interrupted(study: Any) -> None:
    """Mark trials that a killed process left running; this step is the study's only writer."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
