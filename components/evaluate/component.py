from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def evaluate(
    use_case: str,
    problem: dict,
    config: dict,
    model: Input[Model],
    training_set: Input[Dataset],
    verdict: Output[Artifact],
    report: Output[HTML],
    card: Output[Markdown],
    metrics: Output[Metrics],
    roc: Output[ClassificationMetrics],
):
    """Judge a model on days it has never seen, against the champion and a cheap baseline; always finish.

    Args:
        use_case: Name of the use case.
        problem: Section `problem`.
        config: Section `evaluate`.
        model: Bundle of the challenger.
        training_set: Rows whose newest days are the holdout.
        verdict: The decision, one reason per check, and the champion version it was made against.
        report: The same for a person, with plots.
        card: The model card.
        metrics: Metrics of challenger, champion and baseline on the holdout.
        roc: ROC curve and confusion matrix of a classifier.
    """
    from pathlib import Path

    from components.core.sections import Evaluate, Problem
    from components.core.settings import load_settings
    from components.evaluate.step import evaluate_model

    scalars, curves = evaluate_model(
        load_settings(),
        use_case,
        Problem.model_validate(problem),
        Evaluate.model_validate(config),
        bundle=Path(model.path),
        training_set=Path(training_set.path),
        verdict=Path(verdict.path),
        report=Path(report.path),
        card=Path(card.path),
    )
    metrics.metadata.update(scalars)
    roc.metadata.update(curves)
