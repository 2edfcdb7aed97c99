from kfp.dsl import Artifact, Dataset, Input, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def features(
    use_case: str,
    as_of: str,
    problem: dict,
    config: dict,
    registry: str,
    snapshot: Input[Dataset],
    verdict: Input[Artifact],
    training_set: Output[Dataset],
):
    """Join point-in-time correct features to the labelled rows of an approved snapshot and fill the online store.

    Args:
        use_case: Name of the use case.
        as_of: ISO 8601 instant; empty means the snapshot's.
        problem: Section `problem`.
        config: Section `features`.
        registry: Digest of the feature definitions; empty means not checked.
        snapshot: Manifest of the data.
        verdict: Verdict of `validate` on this snapshot.
        training_set: Folder with rows, description and feature registry.
    """
    from pathlib import Path

    from components.core.sections import Features, Problem
    from components.core.settings import load_settings
    from components.features.build import build

    made = build(
        load_settings(),
        use_case,
        as_of=as_of,
        problem=Problem.model_validate(problem),
        config=Features.model_validate(config),
        registry=registry,
        snapshot=Path(snapshot.path),
        verdict=Path(verdict.path),
        folder=Path(training_set.path),
    )
    training_set.metadata.update(digest=made.digest, rows=made.rows, registry=made.registry, snapshot=made.snapshot)
