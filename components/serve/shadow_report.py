"""What a shadow would have answered, beside what was answered: both inference logs, joined by request and row."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from components.core.errors import DataError
from components.core.inference_log import LOOKUP

ON = ("request_id", "row")
QUANTILES = (0.5, 0.9, 0.99)
LIVE_SECONDS = 60.0
"""A request is as of its arrival unless its caller says otherwise: older ones tell nothing about time."""


class Quantiles(BaseModel):
    """50, 90 and 99 percent of values are at most these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: float
    p90: float
    p99: float


class ShadowReport(BaseModel):
    """How two models answered the same rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    served_versions: list[int]
    shadow_versions: list[int]
    served_rows: int
    shadow_rows: int
    matched_rows: int
    """Rows that both answered; everything below is about these."""
    mean_difference: float
    """Of shadow minus served: a shift."""
    mean_absolute_difference: float
    max_absolute_difference: float
    absolute_difference: Quantiles
    threshold: float | None
    flipped_share: float | None
    """Share of rows on different sides of the threshold; None without one."""
    served_seconds: Quantiles | None
    """From arrival to answer, of requests to `predict`; None when there was none as of its arrival."""
    shadow_seconds: Quantiles | None
    """The same of the shadow, from the original's arrival: the wait for being copied included."""


def compare(served: pa.Table, shadow: pa.Table, *, threshold: float | None = None) -> ShadowReport:
    """Return the comparison of two tables of the inference log's columns (`core.inference_log`).

    A row that a log has twice (a copy that was sent again, a caller that uses one request id twice) counts once: its
    first answer. Raises DataError when no row is in both.
    """
    one, other = _first_answers(served), _first_answers(shadow)
    columns = [*ON, "prediction"]
    both = one.select(columns).join(other.select(columns), list(ON), join_type="inner", right_suffix="_shadow")
    if not both.num_rows:
        raise DataError(
            "no request was answered by both",
            measured=f"{one.num_rows} served rows, {other.num_rows} rows of the shadow",
            next_step="look at driftline_shadow_requests_total, and whether the days are right",
        )
    answered = both.column("prediction").to_numpy()
    copied = both.column("prediction_shadow").to_numpy()
    difference = copied - answered
    return ShadowReport(
        served_versions=_versions(served),
        shadow_versions=_versions(shadow),
        served_rows=one.num_rows,
        shadow_rows=other.num_rows,
        matched_rows=both.num_rows,
        mean_difference=float(difference.mean()),
        mean_absolute_difference=float(np.abs(difference).mean()),
        max_absolute_difference=float(np.abs(difference).max()),
        absolute_difference=_quantiles(np.abs(difference)),
        threshold=threshold,
        flipped_share=None if threshold is None else float(((answered >= threshold) != (copied >= threshold)).mean()),
        served_seconds=_seconds(one),
        shadow_seconds=_seconds(other),
    )


def _first_answers(table: pa.Table) -> pa.Table:
    """Return one line per request and row, the one that was answered first."""
    ordered = table.sort_by([("served_at", "ascending")])
    numbered = ordered.append_column("line", pa.array(np.arange(ordered.num_rows)))
    first = numbered.group_by(list(ON)).aggregate([("line", "min")]).column("line_min")
    return ordered.take(first)


def _versions(table: pa.Table) -> list[int]:
    versions: list[int] = sorted(pc.unique(table.column("model_version")).to_pylist())
    return versions


def _seconds(table: pa.Table) -> Quantiles | None:
    lookups = table.filter(pc.equal(table.column("route"), LOOKUP))
    served, as_of = (lookups.column(name).cast(pa.int64()).to_numpy() for name in ("served_at", "as_of"))
    seconds = (served - as_of) / 1e6
    seconds = seconds[(seconds >= 0) & (seconds <= LIVE_SECONDS)]
    return _quantiles(seconds) if seconds.size else None


def _quantiles(values: npt.NDArray[Any]) -> Quantiles:
    p50, p90, p99 = (float(value) for value in np.quantile(values, QUANTILES))
    return Quantiles(p50=p50, p90=p90, p99=p99)
