from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def train(
    use_case: str,
    problem: dict,
    config: dict,
    training_set: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
):
    """Train a model on the training set, register it and write its bundle.

    Args:
        use_case: Name of the use case.
        problem: Section `problem`.
        config: Section `train`.
        training_set: Point-in-time correct rows.
        model: Bundle: ONNX graph, encoding, native model, golden rows and model card.
        metrics: Scores on the validation part.
    """
    from pathlib import Path

    from components.core.sections import Problem, Train
    from components.core.settings import load_settings
    from components.train.fit import fit

    card = fit(
        load_settings(),
        use_case=use_case,
        problem=Problem.model_validate(problem),
        config=Train.model_validate(config),
        training_set=Path(training_set.path),
        bundle=Path(model.path),
    )
    metrics.metadata.update(card.validation)
    model.metadata.update(version=card.version, digest=card.model)
