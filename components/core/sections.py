"""The sections of `use_case.yaml`: one per pipeline step, so that a changed gate leaves training cached.

Unknown keys are errors. The models are not strict: KFP returns ints as floats and instants as text.
"""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
InputKind = Literal["number", "category"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Section):
    """The prediction problem: what is predicted, for whom, and when it becomes known."""

    task: Literal["classification", "regression"]
    table: Name
    """The SQL table with one row per prediction: `event_timestamp` is the prediction instant,
    `label_timestamp` the instant the label became known."""
    label: Name
    id: list[Name] = Field(min_length=1)
    """Columns that identify one prediction."""
    entities: list[Name] = Field(min_length=1)
    """Join keys that the feature service needs."""
    inputs: dict[Name, InputKind] = {}
    """Columns of the prediction table that are model inputs; a request brings them."""

    @field_validator("inputs")
    @classmethod
    def _sorted(cls, inputs: dict[str, InputKind]) -> dict[str, InputKind]:
        # Mappings cross KFP as protobuf structs, which keep no order; a model's inputs must.
        return dict(sorted(inputs.items()))


class Source(Section):
    """A declared input file: in an installed package, at a path, or at an fsspec URI."""

    path: str
    package: str = ""
    format: Literal["csv", "parquet"] = "csv"
    columns: dict[str, str] = Field(min_length=1)
    """Column name to DuckDB type."""
    null_values: list[str] = [""]


class Table(Section):
    """An event-grained table that `tables/<name>.sql` selects."""

    keys: list[Name] = Field(min_length=1)


class Data(Section):
    start: str
    """First instant of interest, ISO 8601."""
    sources: dict[Name, Source] = Field(min_length=1)
    views: list[Name] = []
    """Intermediate SELECTs that tables read, in order; they are not written."""
    tables: dict[Name, Table] = {}
    """Feature tables; the prediction table is named by `problem`."""


class Expectations(Section):
    examples: int = Field(5, ge=1, le=20)
    """Failing rows quoted per expectation."""


class Features(Section):
    service: Name
    """Feature service, versioned by name."""
    stale: Literal["null", "reject"] = "null"
    """What serving does with a value older than its view's TTL."""
    missing: Literal["null", "reject"] = "null"
    """What serving does when an entity has no value."""
    chunk_days: int = Field(31, ge=1)
    """Length of one resumable materialization chunk."""


class Gpu(Section):
    type: str = Field("nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """Name under which the nodes offer it."""
    count: int = Field(1, ge=1)


class Toleration(Section):
    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"

    @model_validator(mode="after")
    def _value_is_compared(self) -> "Toleration":
        if bool(self.value) != (self.operator == "Equal"):
            raise ValueError("operator Equal needs a value, Exists has none")
        return self


CPU_QUANTITY = r"^([1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*|[1-9]\d*m)$"
MAX_RUN_SECONDS = 172_800
"""A whole run on a cluster: two days."""
MEMORY_QUANTITY = r"^[1-9]\d*(Mi|Gi|Ti|M|G|T)$"


class Resources(Section):
    """What a step asks the cluster for; what is left out is the step's default."""

    cpu: str = Field("250m", pattern=CPU_QUANTITY)
    """Reserved cores, such as 2 or 500m."""
    cpu_limit: str = Field("", pattern=f"^$|{CPU_QUANTITY}")
    """Most cores; empty: what is free on the node."""
    memory: str = Field("1Gi", pattern=MEMORY_QUANTITY)
    """Reserved and most memory, such as 512Mi or 4G: with a limit above the request, a neighbour may end the pod."""
    gpu: Gpu | None = None
    tolerations: list[Toleration] = []
    node_selector: dict[str, str] = {}
    retries: int = Field(0, ge=0, le=5)
    """How often a failed step is started again, after 30 s, 60 s, 120 s, ..."""
    timeout_seconds: int = Field(0, ge=0, le=MAX_RUN_SECONDS)
    """0: as long as the whole run may take."""

    @field_validator("cpu", "cpu_limit", mode="before")
    @classmethod
    def _cpu(cls, value: object) -> object:
        return _quantity(value, f"^$|{CPU_QUANTITY}", "2, 0.5 or 500m")

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: object) -> object:
        return _quantity(value, MEMORY_QUANTITY, "4Gi, 512Mi or 4G")

    @model_validator(mode="after")
    def _limit_covers_request(self) -> "Resources":
        if self.cpu_limit and _cores(self.cpu_limit) < _cores(self.cpu):
            raise ValueError(f"cpu_limit {self.cpu_limit} is below cpu {self.cpu}")
        return self


def _quantity(value: object, pattern: str, examples: str) -> object:
    """Say what is wrong with a quantity in words; YAML reads `cpu: 2` as a number."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, str) and not re.fullmatch(pattern, text):
        raise ValueError(f"{text!r} is no Kubernetes quantity; allowed: such as {examples}")
    return text


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


class XGBoost(Section):
    kind: Literal["xgboost"]
    rounds: int = Field(400, ge=1)
    early_stopping_rounds: int = Field(30, ge=1)
    learning_rate: float = Field(0.08, gt=0, le=1)
    max_depth: int = Field(6, ge=1, le=16)
    min_child_weight: float = Field(1.0, ge=0)
    subsample: float = Field(1.0, gt=0, le=1)
    colsample_bytree: float = Field(1.0, gt=0, le=1)
    reg_lambda: float = Field(1.0, ge=0)
    checkpoint_every_rounds: int = Field(50, ge=1)


class TorchTabular(Section):
    kind: Literal["torch_tabular"]
    epochs: int = Field(10, ge=1)
    batch_rows: int = Field(2048, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    hidden: list[int] = Field([128, 64], min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    embedding_width: int = Field(8, ge=1)
    patience_epochs: int = Field(3, ge=1)
    checkpoint_every_epochs: int = Field(1, ge=1)


class Train(Section):
    trainer: Annotated[XGBoost | TorchTabular, Field(discriminator="kind")]
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 7
    holdout_days: int = Field(21, ge=2)
    """Newest days, never trained on: the gate judges on them."""
    validation_days: int = Field(14, ge=1)
    """Newest days before the holdout, for early stopping."""
    window_days: int = Field(0, ge=0)
    """0: expanding window from `data.start`; else only the newest days."""


class Tune(Section):
    enabled: bool = False
    trials: int = Field(20, ge=1)
    timeout_seconds: int = Field(600, ge=1)
    space: dict[Name, list[float]] = {}
    """Trainer parameter to [low, high]."""


class Leakage(Section):
    max_gap: float | None = None
    """Largest allowed advantage of a random split over the time split; absent: only reported."""


class Fairness(Section):
    groups: list[Name] = []
    max_difference: float | None = None


class Evaluate(Section):
    metric: Literal["auc", "logloss", "rmse", "mae"] = "auc"
    margin: float = Field(0.0, ge=0)
    """Non-inferiority: the lower bound of the paired difference to the champion must exceed -margin."""
    min_lift: float = 0.0
    """The lower bound of the paired difference to the cheap baseline must exceed this."""
    min_rows: int = Field(1000, ge=1)
    max_calibration_error: float | None = None
    slices: list[Name] = []
    min_slice_rows: int = Field(500, ge=1)
    slice_margin: float = Field(0.05, ge=0)
    fairness: Fairness = Fairness()
    leakage: Leakage = Leakage()
    bootstrap_samples: int = Field(500, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 7


class Package(Section):
    workers: int = Field(1, ge=1)
    timeout_seconds: int = Field(10, ge=1)
    max_batch_rows: int = Field(1000, ge=1)
    max_request_bytes: int = Field(1_000_000, ge=1024)
    golden_rows: int = Field(64, ge=1, le=1000)
    tolerance: float = Field(1e-6, gt=0)
    probe_requests: int = Field(300, ge=10)
    max_p99_ms: float = Field(250.0, gt=0)
    max_rss_mb: float = Field(1500.0, gt=0)

    @model_validator(mode="after")
    def _golden_fit_one_batch(self) -> "Package":
        if self.golden_rows > self.max_batch_rows:
            raise ValueError("golden_rows must not exceed max_batch_rows")
        return self


class Monitor(Section):
    """How production is watched and when a retraining is justified (docs/adr/0008)."""

    policy: Literal["ladder", "performance", "drift", "scheduled", "never", "evidently"] = "ladder"
    """ladder: performance or drift. scheduled: every window. evidently: the dataset flag of Evidently's own preset.
    Broken data stops every policy."""
    window: Literal["day", "week", "month"] = "week"
    """Calendar unit that is judged, in UTC; a week starts on Monday."""
    label_delay_hours: int = Field(24, ge=0)
    """A window is judged this long after its end, when its labels are known."""
    min_rows: int = Field(300, ge=1)
    """Fewer predictions, or fewer labels, are never a verdict."""
    significance: float = Field(0.01, gt=0, lt=0.5)
    """Family-wise level of a drift test."""
    resamples: int = Field(1999, ge=199)
    drifted_windows: int = Field(2, ge=1)
    of_windows: int = Field(3, ge=1)
    """Drift counts when `drifted_windows` of the last `of_windows` windows of one model drifted."""
    cooldown_hours: int = Field(48, ge=0)
    """Least time between two retrainings; not below the label delay."""
    max_per_week: int = Field(1, ge=1)
    lease_minutes: int = Field(120, ge=1)
    """How long a retraining may take before another attempt replaces it."""
    report_rows: int = Field(20_000, ge=0)
    """Rows per side in Evidently's report; 0: no such report."""
    seed: int = 7

    @model_validator(mode="after")
    def _consistent(self) -> "Monitor":
        if self.cooldown_hours < self.label_delay_hours:
            raise ValueError("cooldown_hours must not be below label_delay_hours")
        if self.drifted_windows > self.of_windows:
            raise ValueError("drifted_windows must not exceed of_windows")
        return self
