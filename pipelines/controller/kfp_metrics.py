"""Metrics of the KFP API: whether it answers, how our runs stand there, how often our schedules tick."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

from components.core.errors import ConfigError
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import state_of
from components.core.metric_registry import registry
from components.core.settings import Settings
from pipelines.cluster.runs import pipeline_names
from pipelines.compile import PIPELINES
from pipelines.controller.exposition import Exposition, Sample
from pipelines.schedules.cron import CYCLE, Cron, parse_cron
from pipelines.schedules.model import Existing
from pipelines.schedules.server import list_recurring_runs

SOURCE = "kfp"
UP = "driftline_kfp_up"
RUNS = "driftline_kfp_runs"
SINCE = timedelta(hours=24)
DAY_SECONDS = 86_400


def look_at_kfp(settings: Settings, exposition: Exposition) -> None:
    """Let the exposition say how KFP stands now; of an API that does not answer, only that it does not.

    Raises what `KfpApi.call` raises.
    """
    try:
        api = KfpApi(settings)
        recurring = list_recurring_runs(api)
        samples = [*run_samples(api, recurring), *period_samples(recurring)]
    except Exception:
        exposition.put(SOURCE, [Sample(UP, 0)])
        raise
    exposition.put(SOURCE, [Sample(UP, 1), *samples])


def run_samples(api: KfpApi, recurring: Iterable[Existing]) -> Iterator[Sample]:
    """Yield how many runs of the last 24 hours are in each state, for each pipeline that we know to be ours.

    A run that died before its first step is seen here only. Raises what `KfpApi.call` raises.
    """
    ours = {pipeline_of(found) for found in recurring}
    known = {
        pipeline_id: pair
        for pipeline_id, name in pipeline_names(api).items()
        if (pair := split_name(name)) is not None and pair in ours
    }
    states = next(metric for metric in registry().metrics if metric.name == RUNS).values["status"]
    counts: Counter[tuple[tuple[str, str], str]] = Counter(
        (known[reference.pipeline_id], state_of(run))
        for run in _runs_since(api, datetime.now(UTC) - SINCE)
        if (reference := run.pipeline_version_reference) is not None and reference.pipeline_id in known
    )
    for case, pipeline in sorted(set(known.values())):
        for state in states:
            labels = {"use_case": case, "pipeline": pipeline, "status": state}
            yield Sample(RUNS, counts[(case, pipeline), state], labels)


def period_samples(recurring: Iterable[Existing]) -> Iterator[Sample]:
    """Yield the longest time between two ticks of each pipeline's enabled schedules, and since when there is one."""
    longest: dict[tuple[str, str], float] = {}
    since: dict[tuple[str, str], datetime] = {}
    for found in recurring:
        known = pipeline_of(found)
        if known is None or not found.enabled:
            continue
        try:
            seconds = longest_gap_seconds(str(found.has.get("cron", "")))
        except ConfigError:
            continue  # made by an older release, with what this one would refuse
        longest[known] = min(seconds, longest.get(known, seconds))
        since[known] = min(found.created_at, since.get(known, found.created_at))
    for (case, pipeline), seconds in sorted(longest.items()):
        labels = {"use_case": case, "pipeline": pipeline}
        yield Sample("driftline_schedule_period_seconds", seconds, labels)
        yield Sample("driftline_schedule_since_timestamp_seconds", since[case, pipeline].timestamp(), labels)


def pipeline_of(found: Existing) -> tuple[str, str] | None:
    """Return use case and pipeline of a recurring run by the version that it names, None for another's."""
    return split_name(str(found.has.get("version", "")).rpartition("-")[0])


def split_name(name: str) -> tuple[str, str] | None:
    """Return use case and pipeline of a pipeline's name on KFP, None for one that is not ours."""
    case, _, pipeline = name.rpartition("-")
    # Names on Kubernetes have no underscore, names of use cases no hyphen.
    return (case.replace("-", "_"), pipeline) if case and pipeline in PIPELINES else None


@lru_cache(maxsize=256)
def longest_gap_seconds(text: str) -> float:
    """Return the longest time between two ticks of a cron expression, over all years. Raises ConfigError."""
    cron = parse_cron(text)
    ticks = sorted(3600 * h + 60 * m + s for h, m, s in product(cron.hours, cron.minutes, cron.seconds))
    longest = max((after - before for before, after in pairwise(ticks)), default=0)
    overnight = DAY_SECONDS - ticks[-1] + ticks[0]
    return float(max(longest, (_longest_days(cron) - 1) * DAY_SECONDS + overnight))


def _longest_days(cron: Cron) -> int:
    """Return the largest number of days from one on which it fires to the next one."""
    first, end = CYCLE
    days = [n for n in range((end - first).days) if cron.on(first + timedelta(days=n))]
    return max((after - before for before, after in pairwise(days)), default=1)


def _runs_since(api: KfpApi, instant: datetime) -> Iterator[Any]:
    # A "+" would reach the server as a space.
    since = f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    predicate = {"operation": "GREATER_THAN", "key": "created_at", "timestampValue": since}
    listed = api.pages(
        "list runs",
        api.runs.run_service_list_runs,
        namespace=api.settings.kfp_namespace,
        filter=json.dumps({"predicates": [predicate]}),
    )
    for page in listed:
        yield from page.runs or []
