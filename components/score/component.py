from kfp.dsl import Dataset, Input, Metrics, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def score(use_case: str, scoring_set: Input[Dataset], predictions: Output[Dataset], metrics: Output[Metrics]):
    """Let the champion predict every day of a scoring set that has no predictions yet; append them to the log.

    Args:
        use_case: Name of the use case.
        scoring_set: Folder with rows, description and feature registry.
        predictions: Parquet with ids, instants, predictions and model versions of the whole period.
        metrics: Rows, days scored and kept, mean prediction.
    """
    from pathlib import Path

    from components.core.settings import load_settings
    from components.score.score import score as score_days

    scored = score_days(load_settings(), use_case, scoring_set=Path(scoring_set.path), output=Path(predictions.path))
    metrics.metadata.update(scored.measurements)
    predictions.metadata.update(digest=scored.digest, rows=scored.rows, model_versions=scored.model_versions)
