"""Putting a compiled pipeline on the server, unless this very version is there."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import ClusterError, TakenOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, find_pipeline, find_version, new_pipeline, short_name
from pipelines.compile import version_name


def publish_version(api: KfpApi, ir: str) -> Version:
    """Return the version on the server whose content is this IR; create pipeline and version if need be.

    Several processes may do so at once. Raises TakenOnCluster when a version of that name holds something else, and
    what `KfpApi.call` raises; nothing is changed then.
    """
    spec = next(iter(yaml.safe_load_all(ir)))
    pipeline, name = spec["pipelineInfo"]["name"], version_name(ir)
    found = find_version(api, pipeline, name)
    if found is None:
        _create(api, pipeline, name, ir, spec["pipelineInfo"].get("description", ""))
        found = find_version(api, pipeline, name)
    if found is None:
        raise ClusterError(
            f"version {name} was created and is not there",
            measured=api.settings.kfp_host,
            next_step="run the command again; if it stays so, read the log of service ml-pipeline",
        )
    if not same_content(found.spec, ir):
        raise TakenOnCluster(
            f"version {name} on the server holds another pipeline than the one compiled here",
            measured=f"version id {found.version_id}",
            allowed="the content that its name is the digest of",
            next_step="find out who made it, delete that PipelineVersion, then run the command again",
        )
    return found


def same_content(held: Any, ir: str) -> bool:
    """Return whether what the server holds is this IR; it drops defaults and writes numbers in its own way."""
    spec, *platform = yaml.safe_load_all(ir)
    if "pipeline_spec" in held:
        return _normal(held["pipeline_spec"], held.get("platform_spec")) == _normal(spec, next(iter(platform), None))
    return _normal(held, None) == _normal(spec, next(iter(platform), None))


def _normal(spec: Any, platform: Any) -> tuple[Any, Any]:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    return (
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()),
        json_format.ParseDict(platform or {}, pipeline_spec_pb2.PlatformSpec()),
    )


def _create(api: KfpApi, pipeline: str, name: str, ir: str, description: str) -> None:
    try:
        pipeline_id = find_pipeline(api, pipeline) or _create_pipeline(api, pipeline, description)
        with tempfile.TemporaryDirectory(prefix="driftline-upload-") as folder:
            file = Path(folder) / "pipeline.yaml"
            file.write_text(ir, encoding="utf-8")
            # The server names the Kubernetes object PIPELINE-NAME: the same object that `compile` writes.
            api.call(
                f"create version {name}",
                api.uploads.upload_pipeline_version,
                str(file),
                name=short_name(pipeline, name),
                display_name=name,
                description=description,
                pipelineid=pipeline_id,
            )
    except TakenOnCluster:
        return  # made by somebody else in the meantime; what it holds is compared by the caller


def _create_pipeline(api: KfpApi, name: str, description: str) -> str:
    try:
        return new_pipeline(api, name, description)
    except TakenOnCluster:
        found = find_pipeline(api, name)
        if found is None:
            raise
        return found
