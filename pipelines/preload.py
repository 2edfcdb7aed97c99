"""What the steps of a local run import: loaded once by the fork server, before the step that needs it."""

# Heavy modules by step, in the order of the pipelines. A step that is not here imports little and starts a Python
# of its own. Not listed on purpose: onnxruntime and bentoml start threads when they are imported, and `monitor`
# imports Evidently (7 CPU-seconds) only where its report is wanted.
ARROW = ("pyarrow.compute", "pyarrow.parquet", "pandas")
EXPECTATIONS = (*ARROW, "scipy.stats", "great_expectations", "components.validate.judge")
FEATURES = (*ARROW, "duckdb", "feast", "components.features.asof_store", "components.features.build")
TRACKING = ("mlflow",)
MODELS = (*ARROW, *TRACKING, "xgboost", "onnx", "components.core.tracking")
JUDGING = (
    *MODELS,
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.compose",
    "matplotlib.backends.backend_svg",
    "components.evaluate.step",
)
PRELOAD: dict[str, tuple[str, ...]] = {
    "validate": EXPECTATIONS,
    "features": FEATURES,
    "scoring_set": FEATURES,
    "tune": (*MODELS, "optuna"),
    "train": (*MODELS, "components.train.fit"),
    "evaluate": JUDGING,
    "package": (*FEATURES[:-2], *MODELS, "components.package.packaging"),
    "promote": (*TRACKING, "components.promote.promote"),
}


def preloaded_steps(ir: str) -> list[str]:
    """Return the steps of a compiled pipeline that the fork server runs, in the order of the table."""
    return [step for step in PRELOAD if f"exec-{step.replace('_', '-')}:" in ir]
