"""Runs on the cluster: what KFP knows of them beside what the ledger says they came to."""

import difflib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, DriftlineError, NotOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import ENDED, State, read_run, state_of
from components.core.kfp_steps import ClusterStep
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import Run, RunState
from components.core.settings import Settings
from components.retrain.settle import settle


class ClusterRun(BaseModel):
    """A run: how it goes for KFP, and what came of it."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    pipeline: str
    """Name of the pipeline, empty when it is no longer there."""
    state: State
    """KFP's: whether it runs and whether a step failed."""
    outcome: RunState | Literal[""] = ""
    """The ledger's: refused and superseded are no failures. Empty: no Workflow of this run has claimed it."""
    reason: str = ""
    failed_step: str = ""
    created_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def result(self) -> str:
        """Return the outcome in one word; KFP's own where the ledger has none, or has not heard of the end."""
        if self.outcome and not (self.ended and self.outcome == "running"):
            return self.outcome
        return {"canceled": "cancelled"}.get(self.state, self.state)


def require_run(api: KfpApi, run_id: str) -> Any:
    """Return a run as the API gives it. Raises NotOnCluster."""
    run = read_run(api, run_id)
    if run is None:
        raise NotOnCluster(
            f"there is no run {run_id} on {api.settings.kfp_host}",
            allowed="a run id as `driftline runs list` shows it",
            next_step="driftline runs list",
        )
    return run


def describe_run(api: KfpApi, ledger: sa.Engine | None, run: Any, pipelines: dict[str, str]) -> ClusterRun:
    """Join a run with its outcome; an end that no step could record is brought into the ledger first."""
    known = settle(api, ledger, run) if ledger is not None else None
    reference = run.pipeline_version_reference
    # Where several Workflows report into one record, it may show the end of one that did not claim the run.
    state: State = "running" if state_of(run) in ENDED and is_running(known) else state_of(run)
    return ClusterRun(
        id=run.run_id,
        title=run.display_name or "",
        pipeline=pipelines.get(reference.pipeline_id, "") if reference else "",
        state=state,
        outcome=known.state if known else "",
        reason=known.reason if known else "",
        failed_step=known.failed_step if known else "",
        created_at=run.created_at,
        finished_at=run.finished_at if state in ENDED else None,
    )


def is_running(known: Run | None) -> bool:
    """Return whether the ledger, once settled, says that the Workflow which claimed a run is still at it."""
    return known is not None and known.state == "running"


def list_cluster_runs(
    api: KfpApi, ledger: sa.Engine | None, *, limit: int, wanted: set[str] | None = None
) -> list[ClusterRun]:
    """Return the newest runs first, of the pipelines `wanted` if given. Raises what `KfpApi.call` raises."""
    pipelines = pipeline_names(api)
    found: list[ClusterRun] = []
    for run in _newest(api):
        reference = run.pipeline_version_reference
        if wanted is not None and pipelines.get(reference.pipeline_id if reference else "") not in wanted:
            continue
        found.append(describe_run(api, ledger, run, pipelines))
        if len(found) == limit:
            break
    return found


def pipeline_names(api: KfpApi) -> dict[str, str]:
    """Return the names of the pipelines on the server by their ids."""
    listing = api.pages(
        "list pipelines", api.pipelines.pipeline_service_list_pipelines, namespace=api.settings.kfp_namespace
    )
    return {p.pipeline_id: p.name or p.display_name for page in listing for p in page.pipelines or []}


def select_step(steps: list[ClusterStep], name: str) -> ClusterStep:
    """Return the step of that name; without a name the failed one, or else the last that started.

    Raises ConfigError for an unknown name, and for a step that has not started.
    """
    started = [step for step in steps if step.started_at is not None]
    if not name:
        chosen = next((step for step in steps if step.state == "failed"), started[-1] if started else None)
    else:
        chosen = next((step for step in started if step.name == name), None)
    if chosen is None:
        near = difflib.get_close_matches(name, [step.name for step in steps], n=1)
        raise ConfigError(
            f"step {name!r} has not started" if near == [name] else f"no such step: {name!r}",
            allowed=", ".join(step.name for step in started) or "no step has started",
            next_step=f"did you mean {near[0]!r}?" if near and near != [name] else "name a step that has started",
        )
    return chosen


def open_ledger_if_any(settings: Settings) -> tuple[sa.Engine | None, str]:
    """Return the ledger, or None and why it cannot be read: a run can be shown without its outcome."""
    try:
        return open_ledger(settings.ledger_url), ""
    except DriftlineError as error:
        return None, str(error)


def _newest(api: KfpApi) -> Iterator[Any]:
    listing = api.pages(
        "list runs",
        api.runs.run_service_list_runs,
        namespace=api.settings.kfp_namespace,
        sort_by="created_at desc",
    )
    for page in listing:
        yield from page.runs or []
