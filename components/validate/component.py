from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def validate(
    use_case: str,
    snapshot: Input[Dataset],
    suite: dict,
    config: dict,
    verdict: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
):
    """Judge a snapshot by built-in checks and its expectation suite; always finish with a verdict.

    Args:
        use_case: Name of the use case.
        snapshot: Manifest of the content-addressed Parquet files.
        suite: Table name to its list of Great Expectations configurations.
        config: Section `expectations`.
        verdict: The decision and one reason per check.
        page: The same for a person, with failing rows.
        metrics: Rows, checks and failed checks by severity.
    """
    from pathlib import Path

    from components.core.sections import Expectations
    from components.core.settings import load_settings
    from components.validate.judge import judge_fetched

    counts = judge_fetched(
        load_settings(),
        use_case,
        Path(snapshot.path),
        suite,
        Expectations.model_validate(config),
        verdict=Path(verdict.path),
        page=Path(page.path),
    )
    metrics.metadata.update(counts)
