"""What a use case asks of the cluster is in the IR; what may be cached is what only computes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.sections import Gpu, Resources, Toleration, Tune
from components.core.usecase import list_use_cases
from pipelines.catalog import Case, override, read_case
from pipelines.compile import compile_training

REPO = Path(__file__).parents[3] / "feature_repo"


@pytest.fixture
def case() -> Case:
    return read_case(REPO, list_use_cases(REPO)[0])


def compiled(case: Case, **changes: object) -> tuple[dict[str, Any], dict[str, Any]]:
    changed = case.model_copy(update={"use_case": case.use_case.model_copy(update=changes)})
    spec, platform = yaml.safe_load_all(compile_training(changed, registry=""))
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    dags = [spec["root"], *spec["components"].values()]
    return {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}


def test_resources_of_a_step_are_in_the_ir(case: Case) -> None:
    wanted = Resources(
        cpu="4",
        memory="8G",
        gpu=Gpu(type="nvidia.com/gpu", count=2),
        tolerations=[Toleration(key="gpu", operator="Equal", value="yes")],
        node_selector={"pool": "gpu"},
        retries=3,
        timeout_seconds=7200,
    )
    spec, executors = compiled(case, resources={"train": wanted})
    asked = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert asked["resourceCpuLimit"] == "4"
    assert asked["resourceMemoryLimit"] == "8G"
    assert asked["accelerator"].items() >= {"resourceCount": "2", "resourceType": "nvidia.com/gpu"}.items()
    placed = executors["exec-train"]
    assert placed["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert placed["tolerations"] == [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]
    assert placed["activeDeadlineSeconds"] == "7200"
    retry = tasks(spec)["train"]["retryPolicy"]
    assert retry["maxRetryCount"] == 3
    untouched = spec["deploymentSpec"]["executors"]["exec-ingest"]["container"]
    assert "resources" not in untouched


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
