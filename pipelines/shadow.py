"""The comparison of a shadow with what serves, from the logs of both."""

from datetime import UTC, datetime, timedelta
from typing import Any

from components.core.errors import ConfigError
from components.core.sections import Problem
from components.core.settings import Settings

DECISION_THRESHOLD = 0.5


def between(first: Any, last: Any) -> tuple[datetime, datetime]:
    """Return the instants that two days include; None is yesterday and today. Raises ConfigError for a wrong order."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = first.replace(tzinfo=UTC) if first else today - timedelta(days=1)
    end = (last.replace(tzinfo=UTC) if last else today) + timedelta(days=1)
    if start >= end:
        raise ConfigError(
            "these days hold nothing", measured=f"{start.date()} to {end.date()}", allowed="first <= last"
        )
    return start, end


def shadow_report(
    settings: Settings, problem: Problem, use_case: str, first: datetime, last: datetime, *, threshold: float | None
) -> Any:
    """Return the `ShadowReport` of the predictions as of `first` (included) to `last` (excluded).

    Both logs are fetched from the object store where there is one. Raises DataError when no row is in both.
    """
    from components.core.inference_log import read_predictions
    from components.core.object_store import fetch_predictions
    from components.serve.shadow_report import compare

    if threshold is None and problem.task == "classification":
        threshold = DECISION_THRESHOLD
    tables = []
    for root in (settings.predictions, settings.shadow_predictions):
        of_one = settings.model_copy(update={"inference_log": root})
        fetch_predictions(of_one, use_case, first, last)
        tables.append(read_predictions(root, use_case, first, last))
    return compare(*tables, threshold=threshold)


def as_text(use_case: str, report: Any) -> str:
    """Return the report for people."""
    served = ", ".join(map(str, report.served_versions))
    shadow = ", ".join(map(str, report.shadow_versions))
    share = report.matched_rows / report.served_rows
    quantiles = report.absolute_difference
    lines = [
        f"{use_case}: version {served} answered, version {shadow} in its shadow",
        f"  rows matched        {report.matched_rows} of {report.served_rows} ({share:.1%})",
        f"  absolute difference mean {report.mean_absolute_difference:.4g}, p50 {quantiles.p50:.4g}, "
        f"p99 {quantiles.p99:.4g}, max {report.max_absolute_difference:.4g}",
        f"  shift               {report.mean_difference:+.4g}",
    ]
    if report.threshold is not None:
        lines.append(f"  flipped decisions   {report.flipped_share:.2%} at {report.threshold:g}")
    for name, seconds in (("answered within", report.served_seconds), ("shadow within", report.shadow_seconds)):
        if seconds is not None:
            lines.append(f"  {name:<19} p50 {seconds.p50 * 1e3:.0f} ms, p99 {seconds.p99 * 1e3:.0f} ms")
    return "\n".join(lines)
