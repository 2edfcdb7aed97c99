"""Compiled objects on a real API server: served as they are, immutable, and gone with their pipeline."""

import copy
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.catalog import read_case
from pipelines.compile import compile_for_cluster
from pipelines.kubernetes_objects import API_VERSION, kubernetes_objects, objects_text

REPO = Path(__file__).parents[2] / "feature_repo"
IMAGES = {"cpu": f"registry.example/driftline/driftline-cpu@sha256:{'0' * 64}"}
VISIBLE_SECONDS = 30
PLURALS = {"Pipeline": "pipelines", "PipelineVersion": "pipelineversions"}


class Applied:
    """The objects of an own pipeline, applied as `kubectl apply --server-side` does."""

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        config.load_kube_config()
        self._client, self.namespace = client.ApiClient(), namespace
        case = read_case(REPO, "wind")
        # An own name: the objects of `wind` may be somebody's.
        own = case.use_case.model_copy(update={"name": f"c{uuid.uuid4().hex[:8]}"})
        case = case.model_copy(update={"use_case": own})
        self.ir = compile_for_cluster(case, "monitoring", "0" * 64, IMAGES)
        text = objects_text(kubernetes_objects(own, "monitoring", self.ir, namespace))
        self.pipeline, self.version = yaml.safe_load_all(text)

    def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.call_api(
            self._path(wanted),
            "PATCH",
            query_params=[("fieldManager", "driftline-test"), ("force", "true")],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            body=wanted,
            auth_settings=["BearerToken"],
            response_type="object",
            _return_http_data_only=True,
        )
        return dict(answer)

    def delete(self, wanted: dict[str, Any]) -> None:
        self._client.call_api(self._path(wanted), "DELETE", auth_settings=["BearerToken"], response_type="object")

    def read(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return dict(
            self._client.call_api(
                self._path(wanted),
                "GET",
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
            )
        )

    def _path(self, wanted: dict[str, Any]) -> str:
        kind, name = PLURALS[wanted["kind"]], wanted["metadata"]["name"]
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{kind}/{name}"


@pytest.fixture
def applied() -> Iterator[Applied]:
    from kubernetes.client import ApiException

    objects = Applied(os.environ.get("KFP_NAMESPACE") or "kubeflow")
    try:
        yield objects
    finally:
        try:
            objects.delete(objects.pipeline)
        except ApiException as error:
            if error.status != 404:
                raise


def test_objects_are_served_immutable_and_deleted(applied: Applied) -> None:
    import kfp_server_api
    from kubernetes.client import ApiException

    with pytest.raises(ApiException, match="doesn't map to an existing Pipeline"):
        applied.apply(applied.version)
    pipeline_id = applied.apply(applied.pipeline)["metadata"]["uid"]
    version_id = applied.apply(applied.version)["metadata"]["uid"]

    # KFP's API serves them, whole: what runs is what was compiled.
    api = kfp_server_api.PipelineServiceApi(
        kfp_server_api.ApiClient(kfp_server_api.Configuration(host=os.environ["KFP_HOST"]))
    )
    seen = wait_for(lambda: api.pipeline_service_get_pipeline_version(pipeline_id, version_id))
    assert seen.display_name == applied.version["metadata"]["name"]
    assert f"{applied.pipeline['metadata']['name']}-{seen.name}" == seen.display_name, "as an upload names it"
    assert api.pipeline_service_get_pipeline(pipeline_id).display_name == applied.pipeline["spec"]["displayName"]
    spec, platform = yaml.safe_load_all(applied.ir)
    served = seen.pipeline_spec
    assert served["pipeline_spec"]["deploymentSpec"] == spec["deploymentSpec"]
    assert set(served["platform_spec"]["platforms"]) == set(platform["platforms"])

    # Applying the same again changes nothing; an edited pipeline under the same name is refused.
    again = applied.apply(applied.version)
    assert (again["metadata"]["uid"], again["metadata"]["generation"]) == (version_id, 1)
    edited = copy.deepcopy(applied.version)
    executors = edited["spec"]["pipelineSpec"]["deploymentSpec"]["executors"]
    executors["exec-ingest"]["container"]["image"] = IMAGES["cpu"].replace("0" * 64, "1" * 64)
    with pytest.raises(ApiException, match="immutable"):
        applied.apply(edited)
    assert applied.read(applied.version)["spec"]["pipelineSpec"] == applied.version["spec"]["pipelineSpec"]

    # With the pipeline its versions go.
    applied.delete(applied.pipeline)
    assert gone(lambda: applied.read(applied.version)), "the version outlived its pipeline"


def gone(read: Callable[[], Any]) -> bool:
    """Tell whether a call answers 404 in time."""
    from kubernetes.client import ApiException

    for _ in range(VISIBLE_SECONDS):
        try:
            read()
        except ApiException as error:
            return error.status == 404
        time.sleep(1)
    return False


def wait_for(read: Callable[[], Any]) -> Any:
    """Return what a call answers as soon as it does not raise."""
    from kfp_server_api import ApiException

    for _ in range(VISIBLE_SECONDS):
        try:
            return read()
        except ApiException as error:
            if error.status != 404:
                raise
        time.sleep(1)
    return read()
