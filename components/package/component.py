from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def package(
    use_case: str,
    problem: dict,
    config: dict,
    model: Input[Model],
    training_set: Input[Dataset],
    verdict: Input[Artifact],
    bento: Output[Artifact],
    probe: Output[Markdown],
    metrics: Output[Metrics],
):
    """Build the Bento of an approved model, keep it, and probe it as a real server; refuse everything else.

    Args:
        use_case: Name of the use case.
        problem: Section `problem`.
        config: Section `package`.
        model: The bundle that the gate judged.
        training_set: The rows that the model was trained on.
        verdict: The decision of `evaluate`.
        bento: The archive, a tar.
        probe: Measurements beside limits.
        metrics: The same measurements.
    """
    from pathlib import Path

    from components.core.sections import Package, Problem
    from components.core.settings import load_settings
    from components.package.packaging import package_model

    packaged = package_model(
        load_settings(),
        use_case,
        problem=Problem.model_validate(problem),
        config=Package.model_validate(config),
        model=Path(model.path),
        training_set=Path(training_set.path),
        verdict=Path(verdict.path),
        bento=Path(bento.path),
        probe=Path(probe.path),
    )
    bento.metadata.update(packaged.model_dump(exclude={"measurements"}))
    metrics.metadata.update(packaged.measurements.model_dump())
