from kfp.dsl import Dataset, Input, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def tune(use_case: str, problem: dict, train: dict, config: dict, training_set: Input[Dataset]) -> dict:
    """Search hyperparameters on the validation part and return the section `train` with the best ones.

    Args:
        use_case: Name of the use case.
        problem: Section `problem`.
        train: Section `train`: the starting point, and everything that is not searched.
        config: Section `tune`.
        training_set: Point-in-time correct rows.

    Returns:
        Section `train` with the best trainer parameters.
    """
    from pathlib import Path

    from components.core.sections import Problem, Train, Tune
    from components.core.settings import load_settings
    from components.train.search import search

    best = search(
        load_settings(),
        use_case=use_case,
        problem=Problem.model_validate(problem),
        train=Train.model_validate(train),
        config=Tune.model_validate(config),
        training_set=Path(training_set.path),
    )
    return best.model_dump(mode="json", exclude_none=True)
