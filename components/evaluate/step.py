"""The evaluation step: judge, then write verdict, report and model card, whatever the decision."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from components.core.sections import Evaluate, Problem
from components.core.settings import Settings
from components.core.storage import write_text
from components.core.verdict import Verdict, write_verdict
from components.evaluate.card import render_card
from components.evaluate.champion import fetch_champion
from components.evaluate.curves import classification_metadata, confusion_matrix, roc_curve
from components.evaluate.fairness import operating_threshold
from components.evaluate.gates import sentence
from components.evaluate.judging import Judgement, judge
from components.evaluate.measurements import Measurements
from components.evaluate.report import render_report

log = logging.getLogger(__name__)


def evaluate_model(
    settings: Settings,
    use_case: str,
    problem: Problem,
    config: Evaluate,
    *,
    bundle: Path,
    training_set: Path,
    verdict: Path,
    report: Path,
    card: Path,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Judge a bundle against the current champion and write the three files.

    Returns scalar metrics and the metadata of a KFP ClassificationMetrics artifact.
    """
    with tempfile.TemporaryDirectory(prefix="champion-") as folder:
        champion_bundle, champion_version = fetch_champion(settings, use_case, Path(folder))
        judgement = judge(problem, config, bundle, training_set, champion_bundle, champion_version)
    write_judgement(use_case, problem, config, judgement, verdict=verdict, report=report, card=card)
    scalars = scalar_metrics(judgement.measurements)
    from components.core.tracking import log_metrics

    log_metrics(settings, judgement.card.mlflow_run, {f"holdout_{name}": value for name, value in scalars.items()})
    return scalars, curves(problem, judgement)


def write_judgement(
    use_case: str,
    problem: Problem,
    config: Evaluate,
    judgement: Judgement,
    *,
    verdict: Path,
    report: Path,
    card: Path,
) -> Verdict:
    """Write verdict, report and model card of a judgement; the verdict last, since the next step obeys it."""
    write_text(report, render_report(use_case, problem, config, judgement))
    write_text(card, render_card(use_case, problem, config, judgement))
    complete = judgement.verdict.model_copy(update={"evidence": evidence(judgement)})
    write_verdict(verdict, complete)
    log.info(sentence(complete, judgement.measurements, version=judgement.card.version))
    return complete


def evidence(judgement: Judgement) -> dict[str, Any]:
    """Return what promotion needs for its compare-and-swap, and the figures behind the decision."""
    measured = judgement.measurements
    champion = measured.champion
    return {
        "version": judgement.card.version,
        "model": judgement.card.model,
        "training_set": judgement.training_set.digest,
        "champion_version": champion.version if champion else None,
        "champion_model": champion.model if champion else "",
        "sentence": sentence(judgement.verdict, measured, version=judgement.card.version),
        "holdout_first": judgement.holdout.dates[0] if judgement.holdout.dates else "",
        "holdout_last": judgement.holdout.dates[-1] if judgement.holdout.dates else "",
        "measurements": measured.model_dump(mode="json", exclude={"notes"}),
    }


def scalar_metrics(measured: Measurements) -> dict[str, float]:
    """Return the scalars worth a column in a run comparison."""
    figures: dict[str, float | None] = {"rows": measured.rows, "days": measured.days}
    for prefix, model in (
        ("", measured.challenger),
        ("baseline_", measured.baseline),
        ("champion_", measured.champion_model),
    ):
        figures |= {f"{prefix}{name}": found.estimate for name, found in model.metrics.items()} if model else {}
    for name, found in (("lift", measured.lift), ("gain", measured.gain)):
        figures |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    if measured.leakage:
        figures["leakage_gap"] = measured.leakage.gap
    return {name: float(value) for name, value in figures.items() if value is not None}


def curves(problem: Problem, judgement: Judgement) -> dict[str, Any]:
    """Return ROC curve and confusion matrix of the challenger; nothing for a regression or a broken model."""
    labels, predictions = judgement.holdout.labels, judgement.predictions["challenger"]
    if problem.task != "classification" or judgement.measurements.defects or not labels.size:
        return {}
    threshold = operating_threshold(labels, predictions)
    return classification_metadata(
        roc_curve(labels, predictions), confusion_matrix(labels, predictions, threshold), problem.label
    )
