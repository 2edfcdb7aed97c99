from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def monitor(
    use_case: str,
    as_of: str,
    problem: dict,
    config: dict,
    evaluate: dict,
    snapshot: Input[Dataset],
    evidence: Output[Artifact],
    page: Output[HTML],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Measure the newest finished window of the champion's predictions; decide nothing, always finish.

    Args:
        use_case: Name of the use case.
        as_of: ISO 8601 instant; empty means now.
        problem: Section `problem`.
        config: Section `monitor`.
        evaluate: Section `evaluate`: the metric and how its interval is made.
        snapshot: Tables whose labels are joined to the predictions.
        evidence: What was measured: sanity, drift and performance.
        page: The same for a person.
        report: Evidently's report of the same window.
        metrics: The figures of the window.
    """
    from pathlib import Path

    from components.core.sections import Evaluate, Monitor, Problem
    from components.core.settings import load_settings
    from components.monitor.step import watch

    measured = watch(
        load_settings(),
        use_case,
        as_of=as_of,
        problem=Problem.model_validate(problem),
        config=Monitor.model_validate(config),
        evaluate=Evaluate.model_validate(evaluate),
        snapshot=Path(snapshot.path),
        evidence=Path(evidence.path),
        page=Path(page.path),
        report=Path(report.path),
    )
    metrics.metadata.update(measured)
