"""The verb: from a training set to a registered, servable bundle."""

import functools
import logging
import shutil
import time
from pathlib import Path

import numpy as np

from components.core import tracking
from components.core.bundle import ModelCard, model_digest, write_card
from components.core.object_store import fetch, publish
from components.core.sections import Problem, Train
from components.core.settings import Settings, check_run_key
from components.train.export import replace_folder, write_bundle
from components.train.profiling import write_reference
from components.train.provenance import code_commit, training_key
from components.train.rows import Prepared, prepare
from components.train.scores import loss_name, scores
from components.train.trainer import Fitted, Job, fit_once

log = logging.getLogger(__name__)


def fit(
    settings: Settings, *, use_case: str, problem: Problem, config: Train, training_set: Path, bundle: Path
) -> ModelCard:
    """Train on a training set, register the model and write its bundle; return the card.

    A killed training goes on from its checkpoint when the same run key, training set and section come again, and gets
    the same model version. Raises DataError for rows that cannot be learned from, ConfigError for a run key that is
    missing or was used with other parameters, TrainingFailed when the trainer or the export fails.
    """
    started = time.monotonic()
    prepared = prepare(training_set, use_case, problem, config)
    run_id = tracking.start_run(settings, use_case, settings.run_key)
    tracking.log_training(settings, run_id, _parameters(config), _training_data(prepared))
    checkpoint = _checkpoint(settings, prepared, problem, config)
    # What another pod of this step left counts: a pod that was taken away left nothing on its disk.
    fetch(settings, checkpoint, again=True)
    fitted = fit_once(
        Job(
            problem.task,
            prepared.encoding,
            prepared.training,
            prepared.validation,
            config,
            checkpoint,
            saved=functools.partial(publish, settings),
        )
    )

    partial = bundle.with_name(f".{bundle.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    parity = write_bundle(partial, fitted, prepared)
    profiled = time.process_time()
    write_reference(
        partial,
        prepared.table,
        prepared.description.inputs,
        use_case=use_case,
        unseen=np.concatenate([prepared.split.validation, prepared.split.holdout]),
        importance=fitted.importance,
    )
    log.info("reference profile of %d rows: %.1f CPU-s", prepared.table.num_rows, time.process_time() - profiled)
    validation = scores(problem.task, prepared.validation.labels, fitted.predict(prepared.validation.inputs))
    named = {f"validation_{name}": value for name, value in validation.items()}
    curves = {f"curve_{loss_name(problem.task)}": fitted.curve}
    tracking.log_metrics(settings, run_id, {**named, "export_parity_error": parity}, curves)

    version = tracking.register_version(settings, use_case, run_id)
    card = _card(partial, prepared, problem, config, fitted, run_id, version, validation, time.monotonic() - started)
    write_card(partial, card)
    tracking.upload_bundle(settings, run_id, partial)
    tracking.finish_run(settings, run_id)
    replace_folder(partial, bundle)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    log.info("version %d of %s: %s", version, use_case, validation)
    return card


def _parameters(config: Train) -> dict[str, object]:
    """Return the section as flat MLflow parameters."""
    section = config.model_dump(exclude={"trainer"})
    return section | {f"trainer.{name}": value for name, value in config.trainer.model_dump().items()}


def _training_data(prepared: Prepared) -> tracking.TrainingData:
    described = prepared.description
    return tracking.TrainingData(
        name=described.service, digest=described.digest, snapshot=described.snapshot, rows=described.rows
    )


def _checkpoint(settings: Settings, prepared: Prepared, problem: Problem, config: Train) -> Path:
    """Return a file whose name changes with anything that must not be resumed across."""
    key = training_key(prepared.description.digest, problem, config)
    return settings.checkpoints / check_run_key(settings.run_key) / "train" / f"{key}.checkpoint"


def _card(
    folder: Path,
    prepared: Prepared,
    problem: Problem,
    config: Train,
    fitted: Fitted,
    run_id: str,
    version: int,
    validation: dict[str, float],
    seconds: float,
) -> ModelCard:
    described = prepared.description
    instants = prepared.table.column("event_timestamp").take(prepared.split.training)
    return ModelCard(
        use_case=described.use_case,
        task=problem.task,
        version=version,
        mlflow_run=run_id,
        model=model_digest(folder),
        training_set=described.digest,
        snapshot=described.snapshot,
        registry=described.registry,
        service=described.service,
        code=code_commit(),
        as_of=described.as_of,
        trainer=config.trainer.model_dump() | {"best_step": int(np.argmin(fitted.curve)) + 1},
        device=fitted.device,
        seed=config.seed,
        first=min(instants.to_pylist()),
        last=max(instants.to_pylist()),
        holdout_from=prepared.split.holdout_from,
        rows=len(prepared.split.training),
        validation=validation,
        seconds=round(seconds, 3),
        notes=fitted.notes,
    )
