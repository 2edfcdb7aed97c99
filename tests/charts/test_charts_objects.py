"""Every object of every chart, with every set of values: schemas, names, labels, references, no secrets, no chance."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Render-time state or chance: GitOps must get the same objects from the same commit.
UNSTEADY = (
    *(r"\blookup\b", r"\.Capabilities\.APIVersions", r"\bgetHostByName\b", r"\bnow\b", r"\b(un)?ixEpoch\b"),
    *(r"\brand(Alpha|Alphanum|Ascii|Bytes|Int|Numeric)\w*\b", r"\bgen(CA|PrivateKey|SelfSignedCert|SignedCert)\w*\b"),
    *(r"\buuidv4\b", r"\bderivePassword\b", r"\bhtpasswd\b", r"\.Release\.(Revision|IsInstall|IsUpgrade)\b"),
)


def longest(kind: str) -> int:
    """Return how long a name may be: shorter where Kubernetes makes a label, a host or another name of it."""
    if kind == "CronJob":
        return 52
    return 63 if kind in {"Service", "Pod", "Job", "Deployment", "StatefulSet", "DaemonSet", "Rollout"} else 253


def test_objects_are_valid_in_three_releases_of_kubernetes(rendered: Any, check: Any) -> None:
    check(rendered.objects)


def test_a_chart_makes_no_secret(rendered: Any) -> None:
    assert not [m["metadata"]["name"] for m in rendered.objects if m["kind"] == "Secret"]


def test_rendering_again_gives_the_same(rendered: Any, render: Any) -> None:
    assert render(rendered.chart, *rendered.values) == rendered.objects


def test_templates_know_neither_the_cluster_nor_the_time(chart: Path) -> None:
    for folder in (chart, chart.parent / "driftline-lib"):
        for template in folder.glob("templates/**/*"):
            if template.is_file():
                # Words in comments and between actions are not calls.
                code = re.sub(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", "", template.read_text(), flags=re.DOTALL)
                actions = " ".join(re.findall(r"\{\{(.*?)\}\}", code, flags=re.DOTALL))
                actions = re.sub(r'"[^"]*"', "", actions)
                found = [word for word in UNSTEADY if re.search(word, actions)]
                assert not found, f"{template.relative_to(chart.parent)} uses {found}"


def test_objects_have_names_of_their_own_and_standard_labels(rendered: Any) -> None:
    seen = set()
    for manifest in rendered.objects:
        name = manifest["metadata"]["name"]
        identity = (manifest["apiVersion"], manifest["kind"], manifest["metadata"].get("namespace"), name)
        assert identity not in seen, f"{identity} twice"
        seen.add(identity)
        assert len(name) <= longest(manifest["kind"]), name
        labels = manifest["metadata"].get("labels", {})
        wanted = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by"}
        assert labels.keys() >= wanted, f"{manifest['kind']} {name} has {sorted(labels)}"
        assert labels["app.kubernetes.io/part-of"] == "driftline", name


def test_the_longest_release_name_fits(rendered: Any, render: Any) -> None:
    """Helm allows 53 characters in a release's name."""
    objects = render(rendered.chart, *rendered.values, name="r" * 53)
    for manifest in objects:
        name = manifest["metadata"]["name"]
        assert len(name) <= longest(manifest["kind"]), f"{manifest['kind']} {name}"
    labels = [value for m in objects for value in m["metadata"].get("labels", {}).values()]
    assert max(len(str(value)) for value in labels) <= 63


def test_services_and_scalers_find_what_they_are_for(rendered: Any) -> None:
    from_kind = {"Deployment", "StatefulSet", "Rollout"}
    workloads = {(m["kind"], m["metadata"]["name"]): m for m in rendered.objects if m["kind"] in from_kind}
    for manifest in rendered.objects:
        spec, name = manifest.get("spec", {}), manifest["metadata"]["name"]
        if manifest["kind"] == "Service" and spec.get("selector"):
            found = [
                workload["spec"]["template"]
                for workload in workloads.values()
                if spec["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
            ]
            assert len(found) == 1, f"Service {name} selects pods of {len(found)} workloads"
            ports = [port for c in found[0]["spec"]["containers"] for port in c.get("ports", [])]
            known = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
            assert {port.get("targetPort", port["port"]) for port in spec["ports"]} <= known, name
        if "scaleTargetRef" in spec:
            target = workloads[spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]]
            assert "replicas" not in target["spec"], f"{name} and its target both say how many pods there are"


def test_two_workloads_never_select_each_others_pods(rendered: Any) -> None:
    templates = [
        (m["metadata"]["name"], m["spec"]["selector"]["matchLabels"], m["spec"]["template"]["metadata"]["labels"])
        for m in rendered.objects
        if m["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Rollout"}
    ]
    for name, selector, _ in templates:
        assert [other for other, _, labels in templates if selector.items() <= labels.items()] == [name]


def test_a_chart_with_pods_brings_a_test(rendered: Any) -> None:
    if any(manifest["kind"] in {"Deployment", "StatefulSet", "Rollout"} for manifest in rendered.objects):
        hooks = [m for m in rendered.objects if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
        assert hooks, "no pod for `helm test`"


def test_a_chart_says_what_it_installed_and_needs(chart: Path, helm: ModuleType, rendered_notes: str) -> None:
    import yaml

    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert re.fullmatch(r">=1\.(3\d)\.0-0", about["kubeVersion"]), "pre-releases such as 1.36.1-gke are releases too"
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert about["apiVersion"] == "v2"
    assert len(rendered_notes.strip()) > 40


@pytest.fixture
def rendered_notes(chart: Path) -> str:
    return (chart / "templates/NOTES.txt").read_text()
