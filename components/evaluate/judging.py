"""Judge a bundle on its holdout: read, predict, measure, decide. Nothing is written."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from components.core.bundle import ModelCard, read_card, read_encoding
from components.core.errors import ConfigError
from components.core.sections import Evaluate, Problem
from components.core.training_set import TrainingSet
from components.core.verdict import Verdict
from components.evaluate.baseline import fit_predict_baseline
from components.evaluate.bootstrap import draw_days, interval, resample
from components.evaluate.contributions import measure_importances
from components.evaluate.fairness import measure_fairness
from components.evaluate.gates import decide
from components.evaluate.holdout import Holdout, columns, load_rows, predict, split_holdout
from components.evaluate.leakage import measure_leakage
from components.evaluate.measurements import Champion, Interval, Leakage, Measurements, Model
from components.evaluate.metrics import CLASSIFICATION, REGRESSION, Floats, Metric, measure, sign
from components.evaluate.slices import measure_slices


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
    predictions: dict[str, Floats] = field(default_factory=dict)
    """By role: challenger, baseline and, where it ran, champion."""


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
    card, encoding = read_card(bundle), read_encoding(bundle)
    manifest, rows = load_rows(training_set)
    check_configuration(problem, config, rows.column_names)
    champion_card = read_card(champion_bundle) if champion_bundle else None
    notes = []
    holdout_from = card.holdout_from
    if champion_card and champion_card.holdout_from > holdout_from:
        holdout_from = champion_card.holdout_from
        notes.append(
            f"judged from {holdout_from:%Y-%m-%d} on: the champion was trained on the days of the holdout before"
        )
    holdout = split_holdout(rows, label=manifest.label, task=problem.task, holdout_from=holdout_from)
    if card.training_set != manifest.digest:
        notes.append("the model was trained from another training set than it is judged on")
    if holdout.unlabelled_rows:
        notes.append(f"{holdout.unlabelled_rows:,} rows of the holdout have no label and were left out")

    challenger = predict(bundle, holdout.rows)
    champion = None
    champion_predictions = None
    if champion_bundle and champion_card:
        champion, champion_predictions = run_champion(
            champion_bundle, champion_card, champion_version, bundle, manifest, holdout, problem.task
        )
    weights = draw_days(max(1, holdout.days), config.bootstrap_samples, config.seed)
    measurements = Measurements(
        metric=config.metric,
        rows=len(holdout.labels),
        days=holdout.days,
        unlabelled_rows=holdout.unlabelled_rows,
        defects=find_defects(challenger, problem.task, "the challenger"),
        champion=champion,
        notes=notes,
    )
    predictions = {"challenger": challenger}
    if not measurements.defects and measurements.rows:
        name, baseline = fit_predict_baseline(
            holdout.past, holdout.rows, label=manifest.label, task=problem.task, inputs=problem.inputs
        )
        if np.isfinite(baseline).all():
            predictions["baseline"] = baseline
        if champion_predictions is not None:
            predictions["champion"] = champion_predictions
        names = {
            "challenger": f"version {card.version}",
            "baseline": name,
            "champion": f"champion (version {champion_version})",
        }
        measurements = measurements.model_copy(
            update=measure_all(problem, config, holdout, predictions, names, weights)
        )
        importances = measure_importances(
            bundle,
            encoding,
            encoding.encode(columns(holdout.rows, encoding), holdout.rows.num_rows),
            holdout.labels,
            metric=config.metric,
            seed=config.seed,
        )
        measurements = measurements.model_copy(
            update={
                "leakage": compare_splits(problem, config, holdout, bundle),
                "importances": importances,
            }
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
            allowed=", ".join(sorted({"auc", "logloss"} if problem.task == "classification" else {"rmse", "mae"})),
            next_step="set evaluate.metric in use_case.yaml",
        )
    for path, wanted in (("slices", config.slices), ("fairness.groups", config.fairness.groups)):
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ConfigError(
                f"evaluate.{path} names columns that the training set lacks",
                measured=", ".join(missing),
                allowed=", ".join(names),
                next_step=f"correct evaluate.{path} in use_case.yaml",
            )


def find_defects(predictions: Floats, task: str, who: str) -> list[str]:
    """Return why predictions are unusable, in words; empty when they can be judged."""
    defects = []
    infinite = int((~np.isfinite(predictions)).sum())
    if infinite:
        defects.append(f"{who} predicts values that are not finite, for {infinite:,} of {predictions.size:,} rows")
    outside = int(((predictions < 0) | (predictions > 1)).sum())
    if task == "classification" and outside:
        defects.append(f"{who} predicts values outside [0, 1], for {outside:,} of {predictions.size:,} rows")
    return defects


def run_champion(
    champion_bundle: Path,
    card: ModelCard,
    version: int,
    bundle: Path,
    manifest: TrainingSet,
    holdout: Holdout,
    task: str,
) -> tuple[Champion, Floats | None]:
    """Predict the holdout with the champion; it cannot be run when the rows lack one of its inputs."""
    new = {c.name: c.kind for c in read_encoding(bundle).columns}
    old = {c.name: c.kind for c in read_encoding(champion_bundle).columns}
    offered = {i.name: i.kind for i in manifest.inputs}
    absent = [name for name, kind in old.items() if offered.get(name) != kind]
    predictions = None
    obstacle = ""
    if absent:
        obstacle = f"the training set lacks {', '.join(absent)}, which the champion needs"
    else:
        predictions = predict(champion_bundle, holdout.rows)
        obstacle = "; ".join(find_defects(predictions, task, "the champion"))
    champion = Champion(
        version=version,
        model=card.model,
        added_inputs=[name for name in new if name not in old],
        removed_inputs=[name for name in old if name not in new],
        obstacle=obstacle,
    )
    return champion, None if obstacle else predictions


def measure_all(
    problem: Problem,
    config: Evaluate,
    holdout: Holdout,
    predictions: dict[str, Floats],
    names: dict[str, str],
    weights: Floats,
) -> dict[str, object]:
    """Measure every model with intervals, their paired differences, slices and groups."""
    metrics: tuple[Metric, ...] = CLASSIFICATION if problem.task == "classification" else REGRESSION
    labels, day = holdout.labels, holdout.day
    points: dict[tuple[str, Metric], float] = {}
    samples: dict[tuple[str, Metric], Floats] = {}
    models: dict[str, Model] = {}
    for role, predicted in predictions.items():
        found: dict[Metric, Interval] = {}
        for metric in metrics:
            points[role, metric] = measure(metric, labels, predicted)
            samples[role, metric] = resample(metric, labels, predicted, day, weights)
            found[metric] = interval(
                points[role, metric],
                samples[role, metric],
                days=holdout.days,
                confidence=config.confidence,
                reflect=metric == "ece",
            )
        models[role] = Model(name=names[role], metrics=found)

    def improvement(role: str) -> Interval:
        if role not in predictions:
            return Interval(estimate=None)
        ours, theirs = ("challenger", config.metric), (role, config.metric)
        direction = sign(config.metric)
        return interval(
            direction * (points[ours] - points[theirs]),
            direction * (samples[ours] - samples[theirs]),
            days=holdout.days,
            confidence=config.confidence,
        )

    reference = "champion" if "champion" in predictions else "baseline"
    slices = None
    if config.slices and reference in predictions:
        slices = measure_slices(
            holdout.rows,
            config.slices,
            metric=config.metric,
            labels=labels,
            challenger=predictions["challenger"],
            reference=predictions[reference],
            reference_name=names[reference],
            day=day,
            weights=weights,
            min_rows=config.min_slice_rows,
            confidence=config.confidence,
        )
    fairness = [
        measure_fairness(
            holdout.rows,
            column,
            task=problem.task,
            labels=labels,
            predictions=predictions["challenger"],
            day=day,
            weights=weights,
            min_rows=config.min_slice_rows,
            confidence=config.confidence,
        )
        for column in config.fairness.groups
    ]
    return {
        "challenger": models["challenger"],
        "baseline": models.get("baseline"),
        "champion_model": models.get("champion"),
        "lift": improvement("baseline"),
        "gain": improvement("champion"),
        "slices": slices,
        "fairness": fairness,
    }


def compare_splits(problem: Problem, config: Evaluate, holdout: Holdout, bundle: Path) -> Leakage | None:
    """Measure leakage on the challenger's inputs."""
    encoding = read_encoding(bundle)
    return measure_leakage(
        encoding.encode(columns(holdout.past, encoding), holdout.past.num_rows),
        holdout.past.column(problem.label).to_numpy().astype(np.float64),
        encoding.encode(columns(holdout.rows, encoding), holdout.rows.num_rows),
        holdout.labels,
        encoding,
        task=problem.task,
        metric=config.metric,
        seed=config.seed,
    )
