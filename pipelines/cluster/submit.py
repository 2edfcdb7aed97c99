"""Starting a run on the cluster, linked to the pipeline version that this checkout compiles to."""

import difflib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from components.core.errors import ClusterUnreachable, ConfigError, NotOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import NewRun, ensure_experiment, find_experiment, list_experiments, start_run
from components.core.settings import Settings
from pipelines.catalog import read_case
from pipelines.cluster.upload import publish_version
from pipelines.compile import compile_for_cluster
from pipelines.definitions import applied_definitions
from pipelines.image_lock import read_image_lock


class Submission(BaseModel):
    """A run that was started."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    title: str
    pipeline: str
    version: str
    experiment: str
    parameters: dict[str, Any]
    created: bool
    """False: a run of this id was there."""


def submit(
    settings: Settings,
    use_case: str,
    pipeline: str,
    *,
    parameters: dict[str, Any],
    images: Path,
    experiment: str = "",
    run_id: str = "",
) -> Submission:
    """Start a run and return it; the version is created if the server lacks it.

    Without an `experiment` it is the one of the use case, made if need be. `run_id` is a UUID chosen by whoever wants
    to repeat this call safely. Raises ConfigError for what is wrong here, NotOnCluster for an unknown experiment,
    TakenOnCluster for a version with another content, ClusterUnreachable when it stays unknown whether the run was
    started.
    """
    run_id = _checked_run_id(run_id) if run_id else str(uuid4())
    api = KfpApi(settings)
    case, lock = read_case(settings.feature_repo, use_case), read_image_lock(images)
    # The server first: applying definitions and compiling takes seconds.
    experiment_id = (
        _experiment(api, experiment) if experiment else ensure_experiment(api, use_case, case.use_case.title)
    )
    ir = compile_for_cluster(case, pipeline, applied_definitions(settings, use_case), lock)
    version = publish_version(api, ir)
    new = NewRun(
        run_id=run_id,
        title=f"{use_case} {pipeline}{f' as of {at}' if (at := parameters.get('as_of')) else ''}, {run_id[:8]}",
        version=version,
        experiment_id=experiment_id,
        parameters=parameters,
    )
    try:
        created = start_run(api, new)
    except ClusterUnreachable as error:
        raise ClusterUnreachable(
            f"it is not known whether run {run_id} was started",
            measured=error.measured,
            next_step=f"run the command again with --run-id {run_id}, which starts it only if it was not",
        ) from error
    return Submission(
        run_id=run_id,
        title=new.title,
        pipeline=version.pipeline,
        version=version.name,
        experiment=experiment or use_case,
        parameters=parameters,
        created=created,
    )


def _checked_run_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ConfigError("--run-id is not a UUID", measured=text, allowed="such as " + str(uuid4())) from None


def _experiment(api: KfpApi, name: str) -> str:
    found = find_experiment(api, name)
    if found is None:
        known = list_experiments(api)
        near = difflib.get_close_matches(name, known, n=1)
        raise NotOnCluster(
            f"there is no experiment {name!r} on {api.settings.kfp_host}",
            allowed=", ".join(known) or "none yet",
            next_step=f"did you mean {near[0]!r}?" if near else "leave --experiment out: the use case has its own",
        )
    return found
