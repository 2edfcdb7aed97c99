"""Runs on Kubeflow Pipelines: found and started by name, so that asking twice starts once."""

import json
import logging
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import ClusterUnreachable, NotOnCluster, TakenOnCluster
from components.core.kfp_api import KfpApi

log = logging.getLogger(__name__)

State = Literal["pending", "running", "succeeded", "failed", "canceled", "canceling", "skipped", "paused", "unknown"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "canceled", "skipped")
POSTS = 3
PAUSE_SECONDS = 2.0


class Version(BaseModel):
    """A pipeline version on the server."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    pipeline_id: str
    name: str
    version_id: str
    spec: Any = None
    """What the server holds: `pipeline_spec`, and `platform_spec` where there is one."""


class NewRun(BaseModel):
    """What a run is started from."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    """A UUID chosen by whoever starts the run, so that he can ask whether it exists."""
    title: str
    version: Version
    experiment_id: str
    parameters: dict[str, Any]


def state_of(run_or_task: Any) -> State:
    """Return the state that the API gives a run or a task."""
    state = str(run_or_task.state or "").lower()
    known: dict[str, State] = {s: s for s in State.__args__}  # type: ignore[attr-defined]
    return known.get(state, "unknown")


def read_run(api: KfpApi, run_id: str) -> Any | None:
    """Return a run as the API gives it, None when there is none. Raises what `KfpApi.call` raises."""
    try:
        return api.call(f"read run {run_id}", api.runs.run_service_get_run, run_id)
    except NotOnCluster:
        return None


def start_run(api: KfpApi, new: NewRun) -> bool:
    """Start a run unless there is one of this id; return whether this call did.

    Two POSTs of one id start two Workflows although the second is answered with an error, so the id is read before
    every POST. Raises ClusterUnreachable when it stays unknown whether the run was started, ClusterError.
    """
    from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run, V2beta1RuntimeConfig

    body = V2beta1Run(
        run_id=new.run_id,
        display_name=new.title,
        experiment_id=new.experiment_id,
        pipeline_version_reference=V2beta1PipelineVersionReference(
            pipeline_id=new.version.pipeline_id, pipeline_version_id=new.version.version_id
        ),
        runtime_config=V2beta1RuntimeConfig(parameters=new.parameters),
    )
    for post in range(1, POSTS + 1):
        if read_run(api, new.run_id) is not None:
            return post > 1
        try:
            api.call(f"start run {new.run_id}", api.runs.run_service_create_run, body)
        except TakenOnCluster:
            return False
        except ClusterUnreachable as error:
            if post == POSTS:
                raise
            log.warning("%s; looking whether it was started", error)
            time.sleep(PAUSE_SECONDS * post)
        else:
            return True
    return False


def find_version(api: KfpApi, pipeline: str, version: str) -> Version | None:
    """Return a version of a pipeline by their names, None when either is missing. Raises what `KfpApi.call` raises."""
    found = find_pipeline(api, pipeline)
    if found is None:
        return None
    names = (version, short_name(pipeline, version))
    listing = api.pages(
        f"list the versions of pipeline {pipeline}",
        api.pipelines.pipeline_service_list_pipeline_versions,
        found,
        sort_by="created_at desc",
    )
    for page in listing:
        for known in page.pipeline_versions or []:
            if (known.name or known.display_name) in names:
                return Version(
                    pipeline=pipeline,
                    pipeline_id=found,
                    name=version,
                    version_id=known.pipeline_version_id,
                    spec=known.pipeline_spec,
                )
    return None


def require_version(api: KfpApi, pipeline: str, version: str) -> Version:
    """Return a version of a pipeline by their names. Raises NotOnCluster, and what `KfpApi.call` raises."""
    found = find_version(api, pipeline, version)
    if found is None:
        raise NotOnCluster(
            f"version {version} of pipeline {pipeline} is not on {api.settings.kfp_host}",
            next_step="apply what `driftline compile --target kubernetes` writes, or submit that pipeline once",
        )
    return found


def find_pipeline(api: KfpApi, name: str) -> str | None:
    """Return the id of a pipeline, None when there is none. Raises what `KfpApi.call` raises."""
    try:
        found = api.call(
            f"read pipeline {name}",
            api.pipelines.pipeline_service_get_pipeline_by_name,
            name,
            namespace=api.settings.kfp_namespace,
        )
    except NotOnCluster:
        return None
    return str(found.pipeline_id)


def short_name(pipeline: str, version: str) -> str:
    """Return a version's name without its pipeline: the API server names the object PIPELINE-VERSION itself."""
    return version.removeprefix(f"{pipeline}-")


def new_pipeline(api: KfpApi, name: str, description: str) -> str:
    """Create a pipeline and return its id. Raises TakenOnCluster, and what `KfpApi.call` raises."""
    from kfp_server_api import V2beta1Pipeline

    new = V2beta1Pipeline(
        name=name, display_name=name, description=description, namespace=api.settings.kfp_namespace or None
    )
    made = api.call(f"create pipeline {name}", api.pipelines.pipeline_service_create_pipeline, new)
    return str(made.pipeline_id)


def find_experiment(api: KfpApi, name: str) -> str | None:
    """Return the id of an experiment, None when there is none. Raises what `KfpApi.call` raises."""
    predicate = {"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]}
    page = api.call(
        f"find experiment {name}",
        api.experiments.experiment_service_list_experiments,
        filter=json.dumps(predicate),
        namespace=api.settings.kfp_namespace,
    )
    return next((str(found.experiment_id) for found in page.experiments or []), None)


def ensure_experiment(api: KfpApi, name: str, description: str = "") -> str:
    """Return the id of an experiment, made if need be; one that another process makes is as good."""
    from kfp_server_api import V2beta1Experiment

    found = find_experiment(api, name)
    if found is not None:
        return found
    new = V2beta1Experiment(display_name=name, description=description, namespace=api.settings.kfp_namespace)
    try:
        made = api.call(f"create experiment {name}", api.experiments.experiment_service_create_experiment, new)
    except TakenOnCluster:
        found = find_experiment(api, name)
        if found is None:
            raise
        return found
    return str(made.experiment_id)


def list_experiments(api: KfpApi) -> list[str]:
    """Return the names of the newest experiments, at most 100."""
    page = api.call(
        "list experiments",
        api.experiments.experiment_service_list_experiments,
        namespace=api.settings.kfp_namespace,
        page_size=100,
        sort_by="created_at desc",
    )
    return [str(found.display_name) for found in page.experiments or []]
