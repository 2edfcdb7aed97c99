"""charts/pipelines: a namespace for pipelines, or the schedules of one use case; never both."""

import ast
import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipelines.commands.schedules import command

CHART = Path(__file__).parents[2] / "charts/pipelines"
SETS = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "ci").glob("*.yaml")}


def by_kind(objects: list[Any], kind: str) -> list[Any]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def test_two_use_cases_and_their_namespace_share_no_object(render: Any) -> None:
    names = []
    for name, values in (
        ("pipelines", SETS["prod"]),
        ("flights", SETS["use-case"] | {"useCase": "flights"}),
        ("wind", SETS["use-case"] | {"useCase": "wind"}),
    ):
        names.append({(m["kind"], m["metadata"]["name"]) for m in render("pipelines", values, name=name)})
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert {kind for kind, _ in names[1]} == {"Job", "NetworkPolicy"}, "what a project of use cases may make"


def test_the_rights_of_pipelines_are_five_calls(render: Any) -> None:
    (role,) = by_kind(render("pipelines", SETS["prod"]), "Role")
    rights = {
        (resource, verb, *rule.get("resourceNames", []))
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        ("pods", "get"),
        ("configmaps", "get", "kfp-launcher"),
        ("secrets", "get", "mlpipeline-minio-artifact"),
        ("workflowtaskresults", "create"),
        ("workflowtaskresults", "patch"),
    }


def test_they_are_those_of_the_installation_of_kfp(render: Any) -> None:
    """infra/kfp narrows the Role that KFP brings; one account must not have two sets of rights."""
    patched = CHART.parents[1] / "infra/kfp/components/harden/runner-role.yaml"
    (operation,) = yaml.safe_load(patched.read_text())
    (role,) = by_kind(render("pipelines", SETS["prod"]), "Role")
    assert operation["value"] == role["rules"]


@pytest.mark.parametrize("given", [[], ["keys"], ["keys", "more-keys"]])
def test_only_named_secrets_are_read(render: Any, given: list[str]) -> None:
    (role,) = by_kind(render("pipelines", SETS["prod"], {"runner": {"secrets": given}}), "Role")
    rules = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert [rule["resourceNames"] for rule in rules] == ([given] if given else [])


def test_the_account_of_schedules_has_no_rights_in_kubernetes(render: Any) -> None:
    for name, values in SETS.items():
        objects = render("pipelines", values)
        if values.get("useCase"):
            assert not by_kind(objects, "Role")
            continue
        for binding in by_kind(objects, "RoleBinding"):
            if binding["subjects"][0]["name"] != "driftline-schedules":
                continue
            role = next(r for r in by_kind(objects, "Role") if r["metadata"]["name"] == binding["roleRef"]["name"])
            assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"pipelines.kubeflow.org"}, name


@pytest.mark.parametrize("prune", [True, False])
def test_the_job_applies_one_use_case_after_each_sync(render: Any, prune: bool) -> None:
    objects = render("pipelines", SETS["use-case"], {"schedules": {"prune": prune}})
    (job,) = by_kind(objects, "Job")
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PostSync"
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["args"][:4] == ["driftline", "schedules", "apply", "--yes"]
    assert "--use-case=flights" in container["args"]
    assert ("--prune" in container["args"]) is prune
    folder = next(a.partition("=")[2] for a in container["args"] if a.startswith("--dir="))
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "schedules")
    assert Path(mount) == Path(folder) / "flights/schedules"
    assert next(v["configMap"]["name"] for v in spec["volumes"] if v["name"] == "schedules") == "flights-schedules"
    assert not [entry for entry in container["env"] if "valueFrom" in entry], "it gets no credential"


def test_a_name_with_an_underscore_is_one_of_kubernetes(render: Any) -> None:
    (job,) = by_kind(render("pipelines", SETS["use-case"], {"useCase": "flights_eu"}), "Job")
    assert job["metadata"]["name"] == "flights-eu-schedules"
    spec = job["spec"]["template"]["spec"]
    assert next(v["configMap"]["name"] for v in spec["volumes"] if v["name"] == "schedules") == "flights-eu-schedules"
    assert "--use-case=flights_eu" in spec["containers"][0]["args"]


def test_a_command_line_is_one_that_the_program_takes(render: Any) -> None:
    (job,) = by_kind(render("pipelines", SETS["use-case"]), "Job")
    program, group, name, *words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (program, group, name) == ("driftline", "schedules", "apply")
    parsed = command.commands["apply"].make_context("apply", words).params
    assert (parsed["use_case"], parsed["yes"], parsed["prune"]) == ("flights", True, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cidr": "0.0.0.0/0", "port": 443},
        {"cidr": "10.0.0.0/0", "port": 443},
        {"cidr": "10.0.0.1", "port": 443},
        {"cidr": "10.0.0.1/32"},
        {"port": 443},
        {"cidr": "10.0.0.1/32", "namespace": "data", "port": 443},
        {"namespace": "data", "port": 0},
    ],
)
@pytest.mark.parametrize("where", ["apiServer", "stores", "sources", "git", "artifactStore"])
def test_the_whole_internet_is_no_peer(render: Any, helm: ModuleType, where: str, wrong: dict[str, Any]) -> None:
    values = copy.deepcopy(SETS["prod"])
    values["networkPolicy"][where] = [wrong]
    with pytest.raises(helm.RenderError, match=f"/networkPolicy/{where}"):
        render("pipelines", values)


def test_pipelines_that_could_not_start_are_refused(render: Any, helm: ModuleType) -> None:
    with pytest.raises(helm.RenderError, match=r"networkPolicy\.apiServer names nothing: no step"):
        render("pipelines", SETS["prod"], {"networkPolicy": {"apiServer": []}})


def test_the_test_pod_asks_for_what_the_role_gives(render: Any) -> None:
    objects = render("pipelines", SETS["prod"])
    (pod,) = by_kind(objects, "Pod")
    code = ast.parse(pod["spec"]["containers"][0]["args"][-1])
    listed = {
        target.id: ast.literal_eval(node.value)
        for node in code.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in {"NEEDED", "DENIED"}
    }
    (role,) = by_kind(objects, "Role")
    given = {(rule["apiGroups"][0], r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert {right[:3] for right in listed["NEEDED"]} <= given
    assert not {right[:3] for right in listed["DENIED"]} & given
