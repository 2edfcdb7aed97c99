"""What a cluster gets: images by digest, a name that is the content, and a monitor that names its training version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ConfigError
from components.core.sections import Gpu, Resources
from pipelines.catalog import Case, read_case
from pipelines.compile import PIPELINES, compile_for_cluster, compile_pipeline, ir_digest, version_name
from pipelines.image_lock import read_image_lock
from pipelines.kubernetes_objects import MAX_OBJECT_BYTES, kubernetes_objects, objects_text

REPO = Path(__file__).parents[3] / "feature_repo"
IMAGES = {"cpu": f"registry.example:5000/driftline/cpu@sha256:{'c' * 64}"}
GPU_IMAGE = f"registry.example:5000/driftline/gpu@sha256:{'d' * 64}"


@pytest.fixture(scope="module")
def case() -> Case:
    return read_case(REPO, "wind")


def changed(case: Case, **changes: object) -> Case:
    return case.model_copy(update={"use_case": case.use_case.model_copy(update=changes)})


def spec_of(ir: str) -> dict[str, Any]:
    return next(iter(yaml.safe_load_all(ir)))


def images_of(ir: str) -> dict[str, str]:
    executors = spec_of(ir)["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"]["image"] for name, executor in executors.items()}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_step_runs_the_locked_image(case: Case, pipeline: str) -> None:
    assert set(images_of(compile_for_cluster(case, pipeline, "", IMAGES)).values()) == {IMAGES["cpu"]}


def test_a_step_with_a_gpu_runs_the_gpu_image(case: Case) -> None:
    train = case.use_case.train.model_copy(update={"device": "cuda"})
    wanted = changed(case, resources={"train": Resources(gpu=Gpu(count=1))}, train=train)
    ir = compile_for_cluster(wanted, "training", "", {**IMAGES, "gpu": GPU_IMAGE})
    assert {step for step, image in images_of(ir).items() if image == GPU_IMAGE} == {"train"}
    with pytest.raises(ConfigError, match=r"step 'train' needs an image that is not locked.*IMAGES=\"cpu gpu\""):
        compile_for_cluster(wanted, "training", "", IMAGES)


def test_a_version_is_its_content(case: Case) -> None:
    ir = compile_for_cluster(case, "training", "", IMAGES)
    assert version_name(ir) == f"wind-training-{ir_digest(ir)[:12]}"
    others = [
        compile_for_cluster(case, "training", "1" * 64, IMAGES),
        compile_for_cluster(case, "training", "", {"cpu": IMAGES["cpu"].replace("c" * 64, "e" * 64)}),
        compile_for_cluster(changed(case, title="Wind"), "training", "", IMAGES),
    ]
    assert len({version_name(each) for each in (ir, *others)}) == 4
    assert compile_for_cluster(case, "training", "", IMAGES) == ir


def test_the_monitor_retrains_the_version_compiled_beside_it(case: Case) -> None:
    training = version_name(compile_for_cluster(case, "training", "5" * 64, IMAGES))
    for ir, expected in (
        (compile_for_cluster(case, "monitoring", "5" * 64, IMAGES), training),
        (compile_pipeline(case, "monitoring", "5" * 64), ""),
    ):
        tasks = spec_of(ir)["components"]["comp-condition-2"]["dag"]["tasks"]
        assert tasks["retrain"]["inputs"]["parameters"]["training"]["runtimeValue"]["constant"] == expected


def test_only_images_tell_a_cluster_from_this_machine(case: Case) -> None:
    cluster, local = compile_for_cluster(case, "training", "", IMAGES), compile_pipeline(case, "training", "")
    (tag,) = set(images_of(local).values())
    assert list(yaml.safe_load_all(cluster.replace(IMAGES["cpu"], tag))) == list(yaml.safe_load_all(local))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_objects_hold_the_ir_and_name_each_other(case: Case, pipeline: str) -> None:
    ir = compile_for_cluster(case, pipeline, "", IMAGES)
    parent, version = yaml.safe_load_all(objects_text(kubernetes_objects(case.use_case, pipeline, ir, "here")))
    assert parent["metadata"]["name"] == version["spec"]["pipelineName"] == f"wind-{pipeline}"
    assert version["metadata"]["name"] == version_name(ir)
    assert {each["metadata"]["namespace"] for each in (parent, version)} == {"here"}
    assert [version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]] == list(yaml.safe_load_all(ir))
    waves = [each["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for each in (parent, version)]
    assert waves == ["0", "1"], "the webhook refuses a version before its pipeline"
    for each in (parent, version):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", each["metadata"]["name"])
        for value in each["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)
    assert len(json.dumps(version)) < MAX_OBJECT_BYTES / 5


def test_a_name_that_argo_cannot_label_is_refused(case: Case) -> None:
    long = changed(case, name="w" * 50)
    ir = compile_for_cluster(long, "training", "", IMAGES)
    with pytest.raises(ConfigError, match="59 characters"):
        kubernetes_objects(long.use_case, "training", ir, "here")


def test_an_object_that_etcd_cannot_take_is_refused(case: Case) -> None:
    spec, platform = yaml.safe_load_all(compile_for_cluster(case, "training", "", IMAGES))
    spec["root"]["dag"]["padding"] = "x" * MAX_OBJECT_BYTES
    with pytest.raises(ConfigError, match="too large for Kubernetes"):
        kubernetes_objects(case.use_case, "training", yaml.safe_dump_all([spec, platform]), "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing"),
        ("{", "is not valid JSON"),
        ("[]", "locks no image"),
        ('{"cpu": "driftline-cpu:0.1.0"}', "image 'cpu' has no digest"),
        ('{"cpu": ""}', "image 'cpu' has no digest"),
        ('{"cpu": "cpu@sha256:abc"}', "image 'cpu' has no digest"),
    ],
)
def test_a_lock_without_digests_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "images.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_image_lock(path)
    assert "make images" in raised.value.next_step


def test_a_lock_is_read(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    path.write_text(json.dumps(IMAGES))
    assert read_image_lock(path) == IMAGES
