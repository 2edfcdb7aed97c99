"""What the judge measured, before anything is decided. Differences are improvements: positive is better."""

from pydantic import BaseModel, ConfigDict

from components.core.bootstrap import Interval
from components.core.metrics import Metric


class Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Measured):
    """One of the three compared predictors: challenger, champion or baseline."""

    name: str
    metrics: dict[Metric, Interval]


class Champion(Measured):
    """The model that the challenger would replace."""

    version: int
    model: str
    """Digest of the model."""
    added_inputs: list[str]
    removed_inputs: list[str]
    """Inputs of the challenger that the champion lacks, and the reverse."""
    obstacle: str = ""
    """Why the champion could not be run on the holdout; empty: it was."""


class Slice(Measured):
    column: str
    value: str
    rows: int
    challenger: float
    reference: float
    difference: Interval
    """All slices' intervals hold together with the configured confidence."""


class Slices(Measured):
    reference: str
    slices: list[Slice]
    left_out: int
    """Values with fewer rows than configured, or without both classes."""


class Group(Measured):
    value: str
    rows: int
    rates: dict[str, float]


class Fairness(Measured):
    column: str
    measure: str
    difference: Interval
    groups: list[Group]
    left_out: int


class Leakage(Measured):
    """The advantage of a random split over the time split, both with the same rows and learner."""

    random_split: float
    time_split: float
    gap: float
    rows: int


class Importance(Measured):
    name: str
    drop: float
    """Loss of the metric when the input is shuffled, mean over repeats."""
    spread: float
    """Standard deviation over repeats."""
    contribution: float | None = None
    """Mean |contribution| to the raw score, where the native model can tell."""


class Measurements(Measured):
    metric: Metric
    rows: int
    days: int
    unlabelled_rows: int = 0
    """Holdout rows without a label, left out."""
    defects: list[str] = []
    """Why the challenger's predictions cannot be judged; empty: they can."""
    challenger: Model | None = None
    baseline: Model | None = None
    champion_model: Model | None = None
    champion: Champion | None = None
    lift: Interval = Interval(estimate=None)
    """Difference to the baseline."""
    gain: Interval = Interval(estimate=None)
    """Difference to the champion."""
    slices: Slices | None = None
    fairness: list[Fairness] = []
    leakage: Leakage | None = None
    importances: list[Importance] = []
    notes: list[str] = []
