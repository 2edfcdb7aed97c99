"""infra/policies as files: complete, in step with what our pipelines use, and the same everywhere."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.usecase import list_use_cases
from pipelines.environment import SECRET_FILES, SHARED

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "infra/policies"
ARTIFACTS = "mlpipeline-minio-artifact"


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def admission() -> list[Any]:
    paths = sorted((POLICIES / "admission").glob("*.yaml"))
    return [one for path in paths if path.stem != "kustomization" for one in documents(path)]


def by_kind(kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in admission() if one["kind"] == kind}


RULES = by_kind("ValidatingAdmissionPolicy")
BINDINGS = by_kind("ValidatingAdmissionPolicyBinding")


def test_every_folder_is_part_of_the_whole() -> None:
    reached = set()

    def visit(folder: Path) -> None:
        reached.add(folder)
        for name in documents(folder / "kustomization.yaml")[0].get("resources", []):
            path = (folder / name).resolve()
            assert path.exists(), f"{folder} names {name}"
            if path.is_dir():
                visit(path)
            else:
                reached.add(path)

    visit(POLICIES)
    # Namespaces of add-ons are for the clusters that have add-ons.
    for cluster in ("staging", "prod"):
        visit(POLICIES.parent / "clusters" / cluster / "policies")
    everything = {path for path in POLICIES.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert everything <= reached
    folders = {path.parent for path in POLICIES.rglob("kustomization.yaml")}
    assert folders - reached == {POLICIES / "audit"}, "the one that a cluster chooses"


def test_objects_are_valid(check: Any) -> None:
    paths = [path for path in POLICIES.rglob("*.yaml") if path.name != "kustomization.yaml"]
    check([one for path in paths for one in documents(path)])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_enforced_closed_and_for_our_namespaces(name: str) -> None:
    rule, binding = RULES[name]["spec"], BINDINGS[name]["spec"]
    assert rule["failurePolicy"] == "Fail"
    assert binding["policyName"] == name
    assert binding["validationActions"] == ["Deny", "Audit"]
    assert "matchResources" not in binding
    ours = next(c["expression"] for c in rule["matchConditions"] if c["name"] == "our-namespaces")
    place = "object.metadata.name" if name == "driftline-namespaces" else "request.namespace"
    assert ours == f"{place} in ['kubeflow', 'driftline-system'] || {place}.startsWith('ml-')"
    assert "paramKind" not in rule, "a recreated rule would not see its settings until the API server restarts"
    for validation in rule["validations"]:
        assert validation["reason"] == "Forbidden"
        assert "message" in validation or "messageExpression" in validation


def variable(rule: str, name: str) -> Any:
    """Return a list or a map that an expression is made of; those of CEL are written as Python's."""
    variables = {each["name"]: each["expression"] for each in RULES[rule]["spec"]["variables"]}
    return ast.literal_eval(variables[name])


def test_a_rule_has_one_binding() -> None:
    assert set(RULES) == set(BINDINGS)
    assert len(RULES) == 5


def test_the_secrets_that_steps_may_read_are_those_that_they_are_given() -> None:
    """A Secret that `pipelines/environment.py` adds is refused on a cluster until it stands here."""
    own = {name: step for step, names in SECRET_FILES.items() for name in names}
    assert set(variable("driftline-workflow-pods", "readable")) == {SHARED, ARTIFACTS, *own}
    assert variable("driftline-workflow-pods", "ofOneStep") == own


def test_the_account_of_pipelines_is_the_charts() -> None:
    values = yaml.safe_load((ROOT / "charts/pipelines/values.yaml").read_text())
    accounts = [values["runner"]["name"]]
    assert variable("driftline-workflow-pods", "accounts") == accounts
    assert variable("driftline-workflow-service-accounts", "allowed") == accounts
    assert values["runner"]["secrets"] == [ARTIFACTS]


def test_every_use_case_has_its_namespace() -> None:
    listed = documents(POLICIES / "kustomization.yaml")[0]["resources"]
    for use_case in list_use_cases(ROOT / "feature_repo"):
        folder = POLICIES / "use-cases" / use_case
        assert f"use-cases/{use_case}" in listed
        made = documents(folder / "kustomization.yaml")[0]
        assert made["namespace"] == f"ml-{use_case.replace('_', '-')}"
        assert made["labels"] == [{"pairs": {"driftline.dev/use-case": use_case}}]


@pytest.mark.parametrize("folder", ["use-case", "driftline-system", "kubeflow"])
def test_a_namespace_is_restricted_closed_and_bounded(folder: str) -> None:
    listed = documents(POLICIES / folder / "kustomization.yaml")[0]["resources"]
    found = [one for name in listed for one in documents(POLICIES / folder / name)]
    labels = next(one for one in found if one["kind"] == "Namespace")["metadata"]["labels"]
    level = labels["pod-security.kubernetes.io/enforce"]
    assert level == ("baseline" if folder == "kubeflow" else "restricted")
    assert labels["pod-security.kubernetes.io/warn"] == labels["pod-security.kubernetes.io/audit"] == "restricted"
    closed = [one["spec"] for one in found if one["kind"] == "NetworkPolicy" and one["spec"]["podSelector"] == {}]
    directions = ["Ingress"] if folder == "kubeflow" else ["Ingress", "Egress"]
    assert closed == [{"podSelector": {}, "policyTypes": directions}]
    if folder != "kubeflow":  # the quota of pipelines is in their chart
        assert {"ResourceQuota", "LimitRange"} <= {one["kind"] for one in found}


def test_auditing_changes_nothing_but_what_is_done_about_a_violation() -> None:
    (patch,) = documents(POLICIES / "audit/kustomization.yaml")[0]["patches"]
    assert patch["target"]["kind"] == "ValidatingAdmissionPolicyBinding"
    assert yaml.safe_load(patch["patch"]) == [
        {"op": "replace", "path": "/spec/validationActions", "value": ["Warn", "Audit"]}
    ]
