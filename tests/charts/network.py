"""Which connections NetworkPolicies allow, as the API documents it: a model for tests, since no cluster of ours has a
network that enforces them.

A pod that some policy selects for a direction is isolated in it: only what a rule of any such policy names is allowed.
A connection needs both ends: egress at the source and ingress at the target.
Source: Kubernetes documentation, "Network Policies", "The two sorts of pod isolation".
"""

import ipaddress
from typing import Any, NamedTuple

Policy = dict[str, Any]


class Pod(NamedTuple):
    """An end inside the cluster."""

    namespace: str
    labels: dict[str, str]


class Host(NamedTuple):
    """An end outside of the pods' network."""

    address: str


def connects(policies: list[Policy], source: Pod | Host, target: Pod | Host, port: int, protocol: str = "TCP") -> bool:
    """Return whether the source reaches a port of the target."""
    out = _allows(policies, "Egress", source, target, port, protocol)
    return out and _allows(policies, "Ingress", target, source, port, protocol)


def _allows(
    policies: list[Policy], direction: str, own: Pod | Host, other: Pod | Host, port: int, protocol: str
) -> bool:
    if isinstance(own, Host):
        return True
    isolating = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], own.labels)
    ]
    if not isolating:
        return True
    end = "to" if direction == "Egress" else "from"
    return any(
        _names_port(rule, port, protocol) and _names_peer(rule.get(end), other, own.namespace)
        for spec in isolating
        for rule in spec.get(direction.lower()) or []
    )


def _names_port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(
        entry.get("protocol", "TCP") == protocol and entry.get("port", port) == port for entry in ports
    )


def _names_peer(peers: list[dict[str, Any]] | None, other: Pod | Host, namespace: str) -> bool:
    if not peers:
        return True
    return any(_is_peer(peer, other, namespace) for peer in peers)


def _is_peer(peer: dict[str, Any], other: Pod | Host, namespace: str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if isinstance(other, Pod):
            return False  # pods are named by labels here; their addresses are in no block of ours
        address = ipaddress.ip_address(other.address)
        excepted = any(address in ipaddress.ip_network(part) for part in block.get("except", []))
        return address in ipaddress.ip_network(block["cidr"]) and not excepted
    if isinstance(other, Host):
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], namespace_labels(other.namespace)):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def namespace_labels(namespace: str) -> dict[str, str]:
    """Return the labels by which policies know a namespace: Kubernetes' own, and that of infra/policies/use-case."""
    part = {"driftline.dev/part": "use-case"} if namespace.startswith("ml-") else {}
    return {"kubernetes.io/metadata.name": namespace} | part


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector holds; an empty one selects everything."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    raise ValueError(f"unknown operator {operator}")
