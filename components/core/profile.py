"""The reference profile: what a model saw, as counts per day. It is made at training and moves with the model.

`profile.json` lies in the bundle and in the Bento, beside `reference.parquet`, a sample of the same rows (inputs,
`event_timestamp` and `prediction`) for people who want to look at them.

A number is cut at quantiles of the reference rows, a category at its own levels. Bins of a number: `edges[i-1] <= value
< edges[i]`, the last bin but one ends at infinity; the last bin counts null and NaN. The outermost edges enclose all
reference values, so the first bin and the last but one count what lies outside their range. Bins of a category: its
levels in order, then every other level, then null.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from components.core.bootstrap import Interval
from components.core.metrics import Metric
from components.core.sections import InputKind
from components.core.storage import write_text

PROFILE = "profile.json"
HOLDOUT = "holdout.json"
REFERENCE = "reference.parquet"
PREDICTION = "prediction"
QUANTILE_BINS = 32
MAX_LEVELS = 100
REFERENCE_ROWS = 10_000

_DAY_MICROS = 86_400_000_000

Counts = npt.NDArray[np.int64]


class ColumnProfile(BaseModel):
    """One input, or the predictions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: InputKind
    view: str = ""
    """Feature view it is read from; empty: the request brings it, or it is the prediction."""
    edges: list[float] = []
    levels: list[str] = []
    days: list[str]
    """UTC days with at least one row, oldest first; of the predictions, only days that the model was not fitted on."""
    counts: list[list[int]]
    """Per day, rows in each bin."""
    distinct: list[int]
    """Per day, number of distinct values, null not among them."""
    quantiles: list[float] = []
    """Of a number: at 1, 5, 10, 25, 50, 75, 90, 95 and 99 percent of all reference values."""
    importance: float = 0.0
    """Share of the model's total gain or attribution; zero where unknown."""

    @property
    def bins(self) -> int:
        return (len(self.edges) + 1 if self.kind == "number" else len(self.levels) + 1) + 1

    def table(self) -> Counts:
        """Return the counts, int64 [days, bins]."""
        return np.array(self.counts, dtype=np.int64).reshape(len(self.days), self.bins)

    def assign(self, values: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.intp]:
        """Return the bin of every value, intp [n]."""
        if self.kind == "number":
            numbers = np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
            found = np.searchsorted(np.asarray(self.edges), numbers, side="right")
            found[np.isnan(numbers)] = self.bins - 1
            return found.astype(np.intp)
        encoded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if not pa.types.is_dictionary(encoded.type):
            encoded = encoded.dictionary_encode()
        position = {level: code for code, level in enumerate(self.levels)}
        # Text as `Encoding.encode` makes it: Arrow writes truth values and floats in another way.
        levels = [str(level) for level in encoded.dictionary.to_pylist()]
        known = np.array([position.get(level, self.bins - 2) for level in levels], dtype=np.intp)
        codes = pc.fill_null(encoded.indices, len(known)).to_numpy(zero_copy_only=False)
        answer: npt.NDArray[np.intp] = np.append(known, self.bins - 1)[codes]
        return answer


class HoldoutPerformance(BaseModel):
    """What the gate measured of the model on days that it was not trained on; `package` writes it into the Bento."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    days: int
    metrics: dict[Metric, Interval]


class Profile(BaseModel):
    """What a model saw: all its inputs, then its predictions."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    use_case: str
    model: str
    """Digest of the model that it belongs to."""
    rows: int
    columns: list[ColumnProfile]
    prediction: ColumnProfile


def utc_days(instants: pa.ChunkedArray | pa.Array) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Return the UTC days with rows, oldest first, and the position among them of every row's day, intp [n].

    `instants` are timestamps without null.
    """
    micros = pc.cast(pc.cast(instants, pa.timestamp("us", tz="UTC")), pa.int64()).to_numpy(zero_copy_only=False)
    number = micros // _DAY_MICROS
    if not number.size:
        return [], np.zeros(0, dtype=np.intp)
    first = int(number.min())
    present = np.bincount(number - first)
    days = np.flatnonzero(present)
    position = np.cumsum(present > 0) - 1
    return [str(np.datetime64(int(day) + first, "D")) for day in days], position[number - first].astype(np.intp)


def count_days(column: ColumnProfile, values: Any, day: npt.NDArray[np.intp], days: int) -> Counts:
    """Count values by day and bin: int64 [days, bins]; `day` is intp [n] with values below `days`."""
    flat = np.bincount(day * column.bins + column.assign(values), minlength=days * column.bins)
    return flat.reshape(days, column.bins)


def write_profile(folder: Path, profile: Profile) -> None:
    """Write `profile.json`."""
    write_text(folder / PROFILE, profile.model_dump_json())


def read_profile(folder: Path) -> Profile:
    """Read `profile.json` of a bundle or of a Bento's model folder."""
    return Profile.model_validate_json((folder / PROFILE).read_text(encoding="utf-8"))
