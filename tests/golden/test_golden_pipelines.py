"""Compiled pipelines, the published schema and the locks do not change unnoticed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from components.core.usecase import UseCase, list_use_cases
from pipelines.catalog import MAX_PARAMETER_BYTES, read_case
from pipelines.compile import PIPELINES, compile_for_cluster, compile_pipeline
from pipelines.kubernetes_objects import kubernetes_objects, objects_text

ROOT = Path(__file__).parents[2]
REPO = ROOT / "feature_repo"
HERE = Path(__file__).parent
IMAGES = {"cpu": f"registry.example/driftline/driftline-cpu@sha256:{'0' * 64}"}
Check = Callable[[Path, str], None]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", list_use_cases(REPO))
def test_ir(name: str, pipeline: str, golden: Check) -> None:
    golden(HERE / f"{name}-{pipeline}.yaml", compile_pipeline(read_case(REPO, name), pipeline, registry="0" * 64))


def test_kubernetes_objects(golden: Check) -> None:
    """Their pipelineSpec is the IR above with images by digest: its digest, within the name, stands for it."""
    text = ""
    for name in list_use_cases(REPO):
        case = read_case(REPO, name)
        for pipeline in PIPELINES:
            ir = compile_for_cluster(case, pipeline, "0" * 64, IMAGES)
            objects = kubernetes_objects(case.use_case, pipeline, ir, "kubeflow")
            for each in objects:
                each["spec"] = {k: v for k, v in each["spec"].items() if k not in ("pipelineSpec", "platformSpec")}
            text += "---\n" + objects_text(objects)
    golden(HERE / "kubernetes-objects.yaml", text)


def test_objects_are_equal_in_every_process(tmp_path: Path) -> None:
    """Another process, hash seed, time and working directory: the same bytes."""
    program = (
        "from pathlib import Path; from pipelines.catalog import read_case;"
        "from pipelines.compile import compile_for_cluster;"
        "from pipelines.kubernetes_objects import kubernetes_objects, objects_text;"
        f"case = read_case(Path({str(REPO)!r}), {list_use_cases(REPO)[0]!r});"
        f"ir = compile_for_cluster(case, 'monitoring', '', {IMAGES!r});"
        "print(objects_text(kubernetes_objects(case.use_case, 'monitoring', ir, 'kubeflow')))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, folder in (("0", ROOT), ("1", tmp_path))
    }
    assert len(texts) == 1


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", list_use_cases(REPO))
def test_the_ir_keeps_the_rules_that_kfp_punishes(name: str, pipeline: str) -> None:
    """See docs/adr/0001: no null, small parameters, one branch on one unnamed bool, caching only where it is sound; all
    tasks in one group that always runs (docs/adr/0015)."""
    spec, platform = yaml.safe_load_all(compile_pipeline(read_case(REPO, name), pipeline, registry=""))
    assert not list(_nulls(spec["root"]))
    for parameter in spec["root"]["inputDefinitions"]["parameters"].values():
        assert len(json.dumps(parameter.get("defaultValue", ""))) <= MAX_PARAMETER_BYTES
    tasks = {
        k: v for c in [spec["root"], *spec["components"].values()] for k, v in c.get("dag", {}).get("tasks", {}).items()
    }
    conditions = [t["triggerPolicy"]["condition"] for t in tasks.values() if "triggerPolicy" in t]
    of_run, of_claim = conditions
    assert (
        of_run
        == "inputs.parameter_values['pipelinechannel--as_of'] == inputs.parameter_values['pipelinechannel--as_of']"
    )
    assert of_claim == "inputs.parameter_values['pipelinechannel--claim-Output'] == true"
    assert list(spec["root"]["dag"]["tasks"]) == ["condition-1"], "a second Workflow of a run must not see its tasks"
    cached = {k for k, t in tasks.items() if t.get("cachingOptions", {}).get("enableCache")}
    assert cached <= {"validate", "train", "condition-1", "condition-2"}
    for step in {"features", "package", "promote"} & set(tasks):
        assert "retryPolicy" not in tasks[step], "a refusal is not to be repeated"
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        assert {e["name"] for e in executor["fieldPathAsEnv"]} == {"DRIFTLINE_RUN_KEY", "DRIFTLINE_WORKFLOW"}


def test_use_case_schema(golden: Check) -> None:
    golden(REPO / "use_case.schema.json", json.dumps(UseCase.model_json_schema(), indent=2) + "\n")


@pytest.mark.parametrize("lock", ["dev.txt", "torch.txt"])
def test_the_lock_satisfies_every_declared_dependency(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["test"],
        *project["dependency-groups"]["lint"],
    ]
    declared += project["project"]["optional-dependencies"]["torch"] if lock == "torch.txt" else []
    text = (ROOT / "requirements" / lock).read_text()
    assert "http" not in re.sub(r"#.*|^[a-z0-9-]*http[a-z0-9-]*==", "", text, flags=re.MULTILINE)
    pinned: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, flags=re.MULTILINE):
        pinned.setdefault(name, []).append(version)
    for requirement in map(Requirement, declared):
        versions = pinned.get(requirement.name.lower().replace("_", "-"), [])
        assert versions, f"{requirement.name} is not locked: run `make lock`"
        assert all(v in requirement.specifier for v in versions), f"{requirement} against {versions}: run `make lock`"


def _nulls(value: object, path: str = "root") -> list[str]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _nulls(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [found for i, v in enumerate(value) for found in _nulls(v, f"{path}[{i}]")]
    return [path] if value is None else []
