from kfp.dsl import Dataset, Input, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def scoring_set(
    use_case: str,
    first: str,
    last: str,
    problem: dict,
    config: dict,
    registry: str,
    snapshot: Input[Dataset],
    scoring_set: Output[Dataset],
):
    """Join point-in-time correct features to every prediction row of a period, labelled or not.

    Args:
        use_case: Name of the use case.
        first: First UTC day, ISO 8601; empty means the day before `last`.
        last: UTC day at which the period ends, itself excluded; empty means the snapshot's day.
        problem: Section `problem`.
        config: Section `features`.
        registry: Digest of the feature definitions; empty means not checked.
        snapshot: Manifest of the data.
        scoring_set: Folder with rows, description and feature registry.
    """
    from pathlib import Path

    from components.core.sections import Features, Problem
    from components.core.settings import load_settings
    from components.features.scoring_set import build_scoring_set

    made = build_scoring_set(
        load_settings(),
        use_case,
        first=first,
        last=last,
        problem=Problem.model_validate(problem),
        config=Features.model_validate(config),
        registry=registry,
        snapshot=Path(snapshot.path),
        folder=Path(scoring_set.path),
    )
    scoring_set.metadata.update(digest=made.digest, rows=made.rows, registry=made.registry, snapshot=made.snapshot)
