"""What a use case asks of the cluster is in the IR; what may be cached is what only computes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.core.errors import ConfigError
from components.core.images import CPU, GPU
from components.core.sections import Gpu, Resources, Toleration, Train, Tune
from components.core.usecase import list_use_cases
from pipelines.catalog import Case, override, read_case
from pipelines.compile import compile_pipeline
from pipelines.resources import DEFAULTS, step_resources
from pipelines.titles import TITLES
from pipelines.wiring import label_value

REPO = Path(__file__).parents[3] / "feature_repo"


@pytest.fixture
def case() -> Case:
    return read_case(REPO, list_use_cases(REPO)[0])


def compiled(case: Case, **changes: object) -> tuple[dict[str, Any], dict[str, Any]]:
    changed = case.model_copy(update={"use_case": case.use_case.model_copy(update=changes)})
    spec, platform = yaml.safe_load_all(compile_pipeline(changed, "training", registry=""))
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    dags = [spec["root"], *spec["components"].values()]
    return {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}


def on_gpu(case: Case) -> Train:
    return case.use_case.train.model_copy(update={"device": "cuda"})


def test_resources_of_a_step_are_in_the_ir(case: Case) -> None:
    wanted = Resources(
        cpu="4",
        cpu_limit="6",
        memory="8G",
        gpu=Gpu(type="nvidia.com/gpu", count=2),
        tolerations=[Toleration(key="gpu", operator="Equal", value="yes")],
        node_selector={"pool": "gpu"},
        retries=3,
        timeout_seconds=7200,
    )
    spec, executors = compiled(case, resources={"train": wanted}, train=on_gpu(case))
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == GPU
    asked = container["resources"]
    assert (asked["resourceCpuRequest"], asked["resourceCpuLimit"]) == ("4", "6")
    assert (asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]) == ("8G", "8G")
    assert asked["accelerator"].items() >= {"resourceCount": "2", "resourceType": "nvidia.com/gpu"}.items()
    placed = executors["exec-train"]
    assert placed["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert placed["tolerations"] == [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]
    assert placed["activeDeadlineSeconds"] == "7200"
    retry = tasks(spec)["train"]["retryPolicy"]
    assert retry["maxRetryCount"] == 3
    untouched = spec["deploymentSpec"]["executors"]["exec-ingest"]["container"]
    assert untouched["image"] == CPU
    assert untouched["resources"]["resourceMemoryRequest"] == DEFAULTS["ingest"].memory


def test_every_step_asks_for_something_and_says_who_pays(case: Case) -> None:
    spec, executors = compiled(case)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        step = name.removeprefix("exec-")
        asked = executor["container"]["resources"]
        assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"]
        assert "resourceCpuRequest" in asked
        assert executors[name]["podMetadata"]["labels"] == {
            "driftline.dev/use-case": case.use_case.name,
            "driftline.dev/pipeline": "training",
            "driftline.dev/step": step,
            "driftline.dev/team": case.use_case.owner,
        }


def test_what_a_use_case_leaves_out_is_the_default(case: Case) -> None:
    changed = case.use_case.model_copy(update={"resources": {"ingest": Resources(memory="7Gi")}})
    assert step_resources(changed, "ingest") == DEFAULTS["ingest"].model_copy(update={"memory": "7Gi"})
    assert set(DEFAULTS) == set(TITLES)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"trian": Resources()}, "did you mean 'train'"),
        ({"evaluate": Resources(gpu=Gpu())}, "a GPU for train or tune"),
        ({"train": Resources(gpu=Gpu())}, "train.device: cuda"),
        ({"package": Resources(retries=1)}, "a refusal is not repeated"),
    ],
)
def test_what_a_step_cannot_use_is_refused(case: Case, resources: dict[str, Resources], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compiled(case, resources=resources)


@pytest.mark.parametrize(
    ("field", "value"),
    [("memory", "4GB"), ("memory", "4"), ("memory", "0Gi"), ("memory", "512m"), ("cpu", "2 cores"), ("cpu", "0")],
)
def test_a_wrong_quantity_is_named_with_a_right_one(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=r"is no Kubernetes quantity; allowed: such as"):
        Resources.model_validate({field: value})


def test_quantities_as_people_write_them() -> None:
    assert Resources.model_validate({"cpu": 2, "cpu_limit": 2.5, "memory": "1G"}).cpu == "2"
    with pytest.raises(ValidationError, match="cpu_limit 500m is below cpu 1"):
        Resources(cpu="1", cpu_limit="500m")
    with pytest.raises(ValidationError, match="operator Equal needs a value"):
        Toleration(key="gpu", operator="Equal")


@given(st.text(max_size=100))
def test_any_owner_becomes_a_label_value(owner: str) -> None:
    value = label_value(owner)
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value)
    assert len(value) <= 63


def test_tuning_is_a_step_only_when_it_is_on(case: Case) -> None:
    off, _ = compiled(case)
    assert "tune" not in tasks(off)
    on, _ = compiled(case, tune=Tune(enabled=True, space={"learning_rate": [0.01, 0.3]}))
    found = tasks(on)
    assert found["train"]["inputs"]["parameters"]["config"]["taskOutputParameter"]["producerTask"] == "tune"


def test_a_changed_gate_leaves_training_as_it_was(case: Case) -> None:
    before, _ = compiled(case)
    stricter = case.use_case.evaluate.model_copy(update={"margin": 0.5})
    after, _ = compiled(case, evaluate=stricter)
    assert tasks(before)["train"] == tasks(after)["train"]
    defaults = [spec["root"]["inputDefinitions"]["parameters"] for spec in (before, after)]
    assert defaults[0]["train"] == defaults[1]["train"]
    assert defaults[0]["evaluate"] != defaults[1]["evaluate"]


def test_overrides_become_whole_sections(case: Case) -> None:
    arguments = override(case, ("train.seed=11", "train.trainer.rounds=5"), "2013-05-01")
    assert set(arguments) == {"train", "as_of"}
    assert arguments["train"]["seed"] == 11
    assert arguments["train"]["trainer"]["rounds"] == 5
    assert arguments["train"]["holdout_days"] == case.use_case.train.holdout_days
    assert override(case, (), None) == {}
