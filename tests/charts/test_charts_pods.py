"""Every pod of every chart, with every set of values: Pod Security "restricted", digests, resources, probes, tokens."""

import re
from collections.abc import Iterator
from typing import Any

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Rollout"}
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "csi"}
SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


def pods(objects: list[Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, pod template and whether the pod is meant to run for ever."""
    for manifest in objects:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["kind"] in WORKLOADS:
            yield name, manifest["spec"]["template"], True
        elif manifest["kind"] == "Job":
            yield name, manifest["spec"]["template"], False
        elif manifest["kind"] == "CronJob":
            yield name, manifest["spec"]["jobTemplate"]["spec"]["template"], False
        elif manifest["kind"] == "Pod":
            yield name, manifest, False


def containers(template: Any) -> list[Any]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def test_pods_are_restricted_by_pod_security(rendered: Any) -> None:
    """The rules of Kubernetes' Pod Security Standards, profile restricted, and a numeric user on a read-only root."""
    for name, template, _ in pods(rendered.objects):
        spec = template["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert isinstance(context["runAsUser"], int), name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not context.get("sysctls"), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key in spec if spec[key]}, name
        for volume in spec.get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES, f"{name}: {volume}"
        for container in containers(template):
            where = f"{name}, {container['name']}"
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert not own.get("privileged"), where
            assert own.get("procMount", "Default") == "Default", where
            assert own.get("runAsNonRoot", True) is True, where
            assert own.get("runAsUser", 1) > 0, where
            assert not any(port.get("hostPort") for port in container.get("ports", [])), where


def test_images_are_named_by_digest(rendered: Any) -> None:
    for name, template, _ in pods(rendered.objects):
        for container in containers(template):
            assert re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", container["image"]), f"{name}: {container['image']}"
            repository = container["image"].partition("@")[0].rpartition("/")[2]
            assert ":" not in repository, f"{name} names a tag beside the digest: {container['image']}"


def test_containers_request_what_they_need_and_have_no_cpu_limit(rendered: Any) -> None:
    for name, template, _ in pods(rendered.objects):
        for container in containers(template):
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests.keys() >= {"cpu", "memory"}, name
            assert limits["memory"] == requests["memory"], name
            assert "cpu" not in limits, name


def test_a_pod_gets_a_token_only_where_its_account_has_rights(rendered: Any) -> None:
    accounts = {m["metadata"]["name"]: m for m in rendered.objects if m["kind"] == "ServiceAccount"}
    bound = {
        subject["name"]
        for manifest in rendered.objects
        if manifest["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        for subject in manifest["subjects"]
    }
    for name, manifest in accounts.items():
        # Pods that others make for an account, such as KFP for its runner, go by the account's own word.
        assert manifest["automountServiceAccountToken"] is False or name in bound, name
    for name, template, _ in pods(rendered.objects):
        spec = template["spec"]
        account = spec["serviceAccountName"]
        assert account not in {"", "default"}, name
        mounts = [m["mountPath"] for c in containers(template) for m in c.get("volumeMounts", [])]
        if spec["automountServiceAccountToken"] or SERVICE_ACCOUNT_FOLDER in mounts:
            # An account that somebody else made has its rights from there.
            assert account in bound or account not in accounts, f"{name} has a token and no rights to use it for"


def test_pods_that_run_for_ever_are_probed_and_stop_gently(rendered: Any) -> None:
    for name, template, lasts in pods(rendered.objects):
        if lasts:
            main = template["spec"]["containers"][0]
            assert main.keys() >= {"livenessProbe", "readinessProbe"}, name
            assert template["spec"].get("terminationGracePeriodSeconds", 30) >= 30, name


def test_pods_that_run_for_ever_may_be_evicted_one_at_a_time(rendered: Any) -> None:
    budgets = [m["spec"] for m in rendered.objects if m["kind"] == "PodDisruptionBudget"]
    for name, template, lasts in pods(rendered.objects):
        if not lasts or name.startswith("DaemonSet"):
            continue
        mine = [b for b in budgets if b["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()]
        assert len(mine) == 1, f"{name} has {len(mine)} budgets"
        assert mine[0]["maxUnavailable"] == 1, name
        assert mine[0]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", name


def test_every_pod_is_closed_but_for_named_peers(rendered: Any) -> None:
    """Each pod has a policy for both directions; a rule names its peers and ports, none is everybody."""
    policies = [m for m in rendered.objects if m["kind"] == "NetworkPolicy"]
    for name, template, _ in pods(rendered.objects):
        labels = template["metadata"].get("labels", {}).items()
        closed = {
            direction
            for policy in policies
            if policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels
            for direction in policy["spec"]["policyTypes"]
        }
        assert closed == {"Ingress", "Egress"}, f"{name} is open for { ({'Ingress', 'Egress'} - closed) }"
    for policy in policies:
        name = policy["metadata"]["name"]
        rules = [(rule, "from") for rule in policy["spec"].get("ingress", [])]
        rules += [(rule, "to") for rule in policy["spec"].get("egress", [])]
        for rule, direction in rules:
            assert rule.get(direction), f"{name}: a rule without peers is for everybody"
            assert rule.get("ports"), f"{name}: a rule without ports is for all of them"
            for peer in rule[direction]:
                assert _names_somebody(peer), f"{name}: {peer}"


def _names_somebody(peer: Any) -> bool:
    if "ipBlock" in peer:
        return bool(not peer["ipBlock"]["cidr"].endswith("/0"))
    selectors = [peer[key] for key in ("namespaceSelector", "podSelector") if key in peer]
    return any(selector.get("matchLabels") or selector.get("matchExpressions") for selector in selectors)


def test_scrape_annotations_point_at_a_port_of_the_pod(rendered: Any) -> None:
    for name, template, _ in pods(rendered.objects):
        notes = template["metadata"].get("annotations", {})
        if "prometheus.io/scrape" in notes:
            ports = {str(p["containerPort"]) for c in containers(template) for p in c.get("ports", [])}
            assert notes["prometheus.io/port"] in ports, name
            assert notes["prometheus.io/path"].startswith("/"), name
