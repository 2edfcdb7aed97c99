"""Compiled pipelines as Kubernetes objects, which KFP's API server serves as they are: `Pipeline`, `PipelineVersion`.

A version's spec is immutable (KFP's webhook refuses an edit), so its name holds its content's digest. The objects are
those of `kfp.compiler` with `kubernetes_manifest_format`, plus labels and what Argo CD needs: the pipeline first, an
old version kept for the runs and schedules that name it, no client-side apply, whose annotation is limited to 256 KiB.
Their specs are those that an upload through KFP's API gives, so that either may come first.
"""

from importlib.metadata import version
from typing import Any

import yaml

from components.core.digests import canonical_json
from components.core.errors import ConfigError
from components.core.usecase import UseCase
from pipelines.compile import ir_digest, version_name
from pipelines.wiring import labels, pipeline_name

API_VERSION = "pipelines.kubeflow.org/v2beta1"
MAX_OBJECT_BYTES = 1_500_000
"""etcd takes 1.5 MiB; KFP's webhook, managed fields and status take some of it."""
MAX_NAME = 57
"""Argo adds six characters for the Workflow, whose name is a label of at most 63."""


def kubernetes_objects(use_case: UseCase, pipeline: str, ir: str, namespace: str) -> list[dict[str, Any]]:
    """Return the `Pipeline` and the `PipelineVersion` of a compiled pipeline, to be created in this order.

    Raises ConfigError when the name is too long for Argo or the version too large for etcd.
    """
    spec, *platform = yaml.safe_load_all(ir)
    name = pipeline_name(use_case.name, pipeline)
    if len(name) > MAX_NAME:
        raise ConfigError(
            "the pipeline's name is too long for Argo's labels",
            measured=f"{name} ({len(name)} characters)",
            allowed=f"{MAX_NAME} characters",
            next_step="give the use case a shorter name",
        )
    description = spec["pipelineInfo"].get("description", "")
    version_spec = {
        "pipelineName": name,
        "versionName": version_name(ir).removeprefix(f"{name}-"),
        "displayName": version_name(ir),
        "description": description,
        "pipelineSpec": spec,
    }
    if platform:
        version_spec["platformSpec"] = platform[0]
    objects = [
        _object(
            "Pipeline",
            _metadata(use_case, pipeline, name, namespace, wave=0),
            {"displayName": name, "description": description},
        ),
        _object(
            "PipelineVersion",
            _metadata(use_case, pipeline, version_name(ir), namespace, wave=1, digest=ir_digest(ir)),
            version_spec,
        ),
    ]
    size = len(canonical_json(objects[1]).encode())
    if size > MAX_OBJECT_BYTES:
        raise ConfigError(
            f"{version_name(ir)} is too large for Kubernetes",
            measured=f"{size} bytes",
            allowed=f"{MAX_OBJECT_BYTES} bytes",
            next_step="shorten tables/*.sql, expectations.json or use_case.yaml",
        )
    return objects


def objects_text(objects: list[dict[str, Any]]) -> str:
    """Return objects as YAML documents; equal objects give equal bytes."""
    return yaml.safe_dump_all(objects, sort_keys=True, width=120, allow_unicode=True)


def _object(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _metadata(
    use_case: UseCase, pipeline: str, name: str, namespace: str, *, wave: int, digest: str = ""
) -> dict[str, Any]:
    # With the pipeline its versions would go, and with them what runs and schedules name: Argo CD prunes neither.
    annotations = {
        "argocd.argoproj.io/sync-options": "Prune=false,ServerSideApply=true",
        "argocd.argoproj.io/sync-wave": str(wave),
    }
    if digest:
        annotations["driftline.dev/ir-sha256"] = digest
    return {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": pipeline_name(use_case.name, pipeline),
            "app.kubernetes.io/component": pipeline,
            "app.kubernetes.io/part-of": "driftline",
            "app.kubernetes.io/version": version("driftline"),
            **labels(use_case, pipeline),
        },
        "annotations": annotations,
    }
