"""Judge a bundle on its holdout: read, predict, measure, decide. Nothing is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.bootstrap import draw_days
from components.core.bundle import ModelCard, read_card, read_encoding
from components.core.errors import ConfigError
from components.core.metrics import CLASSIFICATION, REGRESSION, Floats
from components.core.sections import Evaluate, Problem
from components.core.training_set import TrainingSet
from components.core.verdict import Verdict
from components.evaluate.baseline import fit_predict_baseline
from components.evaluate.comparison import compare_models, find_defects, run_champion
from components.evaluate.contributions import measure_importances
from components.evaluate.gates import decide
from components.evaluate.holdout import Holdout, columns, load_rows, predict, split_holdout
from components.evaluate.leakage import measure_leakage
from components.evaluate.measurements import Measurements


@dataclass(frozen=True)
class Judgement:
    """A verdict with everything that a report shows."""

    card: ModelCard
    training_set: TrainingSet
    holdout: Holdout
    measurements: Measurements
    verdict: Verdict
    weights: Floats
    """Day weights of the bootstrap, [samples, days]."""
    predictions: dict[str, Floats]
    """By role: challenger, and where they exist baseline and champion."""


def judge(
    problem: Problem,
    config: Evaluate,
    bundle: Path,
    training_set: Path,
    champion_bundle: Path | None = None,
    champion_version: int = 0,
) -> Judgement:
    """Judge a bundle against the champion and the baseline; a bad model gets a verdict, never an exception.

    Raises ConfigError for a metric, slice or group that does not exist, DataError for files that contradict
    their own manifests.
    """
    card = read_card(bundle)
    manifest, rows = load_rows(training_set)
    check_configuration(problem, config, rows.column_names)
    champion_card = read_card(champion_bundle) if champion_bundle else None
    holdout_from = max(c.holdout_from for c in (card, champion_card) if c)
    holdout = split_holdout(rows, label=manifest.label, task=problem.task, holdout_from=holdout_from)
    notes = []
    if holdout_from > card.holdout_from:
        notes.append(f"judged from {holdout_from:%Y-%m-%d} on: the champion was trained on earlier days of the holdout")
    if card.training_set != manifest.digest:
        notes.append("the model was trained from another training set than it is judged on")
    if holdout.unlabelled_rows:
        notes.append(f"{holdout.unlabelled_rows:,} rows of the holdout have no label and were left out")

    predictions = {"challenger": predict(bundle, holdout.rows)}
    defects = find_defects(predictions["challenger"], problem.task, "the challenger")
    if holdout.labels.size > 1 and not np.ptp(predictions["challenger"]):
        defects.append(f"the challenger predicts {predictions['challenger'][0]:g} for every row")
    champion = None
    if champion_bundle and champion_card:
        champion, found = run_champion(champion_bundle, champion_card, champion_version, bundle, manifest, holdout)
        if found is not None:
            predictions["champion"] = found
    weights = draw_days(max(1, holdout.days), config.bootstrap_samples, config.seed)
    measured: dict[str, Any] = {}
    if holdout.labels.size and not defects:
        name, baseline = fit_predict_baseline(
            holdout.past, holdout.rows, label=manifest.label, task=problem.task, inputs=problem.inputs
        )
        if np.isfinite(baseline).all():
            predictions["baseline"] = baseline
        names = {
            "challenger": f"version {card.version}",
            "baseline": name,
            "champion": f"champion (version {champion_version})",
        }
        measured = compare_models(problem.task, config, holdout, predictions, names, weights)
        measured |= inspect_inputs(problem.task, config, holdout, bundle, manifest.label)
    measurements = Measurements(
        metric=config.metric,
        rows=len(holdout.labels),
        days=holdout.days,
        unlabelled_rows=holdout.unlabelled_rows,
        defects=defects,
        champion=champion,
        notes=notes,
        **measured,
    )
    verdict = decide(measurements, config, subject=card.model)
    return Judgement(card, manifest, holdout, measurements, verdict, weights, predictions)


def check_configuration(problem: Problem, config: Evaluate, names: list[str]) -> None:
    """Raise ConfigError when the gate asks for what the task or the rows do not have."""
    known = CLASSIFICATION if problem.task == "classification" else REGRESSION
    if config.metric not in known:
        raise ConfigError(
            f"evaluate.metric does not fit a {problem.task}",
            measured=config.metric,
            allowed="auc, logloss" if problem.task == "classification" else "rmse, mae",
            next_step="set evaluate.metric in use_case.yaml",
        )
    wanted = {
        "problem.inputs": list(problem.inputs),
        "evaluate.slices": config.slices,
        "evaluate.fairness.groups": config.fairness.groups,
    }
    for path, columns_wanted in wanted.items():
        missing = [name for name in columns_wanted if name not in names]
        if missing:
            raise ConfigError(
                f"{path} names columns that the training set lacks",
                measured=", ".join(missing),
                allowed=", ".join(names),
                next_step=f"correct {path} in use_case.yaml",
            )


def inspect_inputs(task: str, config: Evaluate, holdout: Holdout, bundle: Path, label: str) -> dict[str, Any]:
    """Return fields of `Measurements`: leakage of the inputs, and how much each matters to the challenger."""
    encoding = read_encoding(bundle)
    past = encoding.encode(columns(holdout.past, encoding), holdout.past.num_rows)
    held = encoding.encode(columns(holdout.rows, encoding), holdout.rows.num_rows)
    return {
        "leakage": measure_leakage(
            past,
            holdout.past.column(label).to_numpy().astype(np.float64),
            held,
            holdout.labels,
            encoding,
            task=task,
            metric=config.metric,
            seed=config.seed,
        ),
        "importances": measure_importances(
            bundle, encoding, held, holdout.labels, metric=config.metric, seed=config.seed
        ),
    }
