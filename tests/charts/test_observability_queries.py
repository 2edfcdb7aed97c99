"""Every query of rules, dashboards and canary analysis parses, and speaks of series that somebody exports.

Labels are inferred from the registry through the whole query, so that a label that an aggregation dropped, a value
that is never set and a legend of nothing are found, too.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from components.core.metric_registry import registry

promql = pytest.importorskip("promql_parser", reason="needs promql-parser (pip install promql-parser)")

CHARTS = Path(__file__).parents[2] / "charts"
RULES = sorted((CHARTS / "observability/rules").glob("*.yaml"))
DASHBOARDS = sorted((CHARTS / "observability/dashboards").glob("*.json"))
# What scraping adds: Prometheus itself, pods' discovery, and labels of pods that chart bento-service asks for.
SCRAPED = {"job", "instance", "namespace", "pod", "app_kubernetes_io_component", "rollouts_pod_template_hash"}
GRAFANA = {"$__rate_interval": "5m", "$__range": "1h"}


class Query(NamedTuple):
    where: str
    text: str
    named: tuple[str, ...] = ()
    """Labels that texts beside the query insert."""


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name}: {rule.get('alert') or rule['record']}", rule


def rule_queries() -> Iterator[Query]:
    for where, rule in rules():
        texts = " ".join(rule.get("annotations", {}).values())
        named = set(re.findall(r"\$labels\.(\w+)", texts)) - set(rule.get("labels", {}))
        yield Query(where, rule["expr"], tuple(sorted(named)))


def dashboard_queries() -> Iterator[Query]:
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                named = tuple(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                yield Query(f"{path.name}: {panel['title']}", target["expr"], () if named == ("le",) else named)
        for note in board["annotations"]["list"]:
            named = tuple(re.findall(r"{{(\w+)}}", note["titleFormat"] + note["textFormat"]))
            yield Query(f"{path.name}: {note['name']}", note["expr"], named + tuple(note["tagKeys"].split(",")))


def inferred(text: str, recorded: dict[str, set[str]]) -> set[str]:
    """Return the labels of a query's result; raise ValueError for what the registry does not know."""
    for variable, value in GRAFANA.items():
        text = text.replace(variable, value)
    return _labels(promql.parse(text), recorded) or set()


def _labels(node: Any, recorded: dict[str, set[str]]) -> set[str] | None:  # noqa: PLR0911 - one per kind of node
    """Return the labels of a vector, None for a number."""
    kind = type(node).__name__
    if kind in ("NumberLiteral", "StringLiteral"):
        return None
    if kind in ("ParenExpr", "UnaryExpr", "SubqueryExpr"):
        return _labels(node.expr, recorded)
    if kind == "MatrixSelector":
        return _labels(node.vector_selector, recorded)
    if kind == "VectorSelector":
        return _selected(node, recorded)
    if kind == "AggregateExpr":
        return _aggregated(node, recorded)
    if kind == "Call":
        return _called(node, recorded)
    assert kind == "BinaryExpr", kind
    return _combined(node, recorded)


def _selected(node: Any, recorded: dict[str, set[str]]) -> set[str]:
    metric = registry().by_series().get(node.name)
    if node.name not in recorded and metric is None:
        raise ValueError(f"{node.name} is neither registered nor recorded")
    known = recorded.get(node.name) or {*metric.labels, *SCRAPED}
    if metric and node.name.endswith("_bucket"):
        known = known | {"le"}
    values = metric.values if metric else {}
    for matcher in node.matchers.matchers:
        if matcher.name not in known:
            raise ValueError(f"{node.name} has no label {matcher.name}")
        if matcher.value.startswith("$") or matcher.name not in values:
            continue
        alternatives = (
            matcher.value.split("|") if "=~" in str(matcher.op) or "Re" in str(matcher.op) else [matcher.value]
        )
        for alternative in alternatives:
            if not any(re.fullmatch(alternative, value) for value in values[matcher.name]):
                raise ValueError(f"{matcher.name} of {node.name} is never {alternative}: {values[matcher.name]}")
    return known


def _aggregated(node: Any, recorded: dict[str, set[str]]) -> set[str]:
    inner = _labels(node.expr, recorded) or set()
    if node.modifier is None:
        return set()
    wanted = set(node.modifier.labels)
    if missing := wanted - inner:
        raise ValueError(f"aggregated by {sorted(missing)}, which {node.expr.prettify().strip()} has not")
    return wanted if str(node.modifier.type).endswith("By") else inner - wanted


def _called(node: Any, recorded: dict[str, set[str]]) -> set[str] | None:
    vectors = [labels for labels in (_labels(argument, recorded) for argument in node.args) if labels is not None]
    name = node.func.name
    if name in ("time", "scalar"):
        return None
    if name in ("vector", "absent"):
        return set()
    if name == "histogram_quantile":
        if "le" not in vectors[0]:
            raise ValueError("a quantile needs buckets: label le is gone")
        return vectors[0] - {"le"}
    return vectors[0]


def _combined(node: Any, recorded: dict[str, set[str]]) -> set[str] | None:
    left, right = _labels(node.lhs, recorded), _labels(node.rhs, recorded)
    if left is None or right is None:
        return left if right is None else right
    operator, modifier = str(node.op), node.modifier
    matching = modifier.matching if modifier else None
    on = set(matching.labels) if matching else None
    if on is not None and (missing := (on - left) | (on - right)):
        raise ValueError(f"matched on {sorted(missing)}, which a side has not")
    if operator in ("and", "unless"):
        return left
    if operator == "or":
        return left & right if left != right else left
    if on is None:
        if left != right:
            raise ValueError(f"never equal: {sorted(left)} {operator} {sorted(right)}")
        return left
    card = str(modifier.card)
    many, one = (left, right) if card.endswith("ManyToOne") else (right, left)
    if card.endswith("OneToOne"):
        return on
    return many | (set(modifier.group_labels or ()) & one)


@pytest.fixture(scope="module")
def recorded() -> dict[str, set[str]]:
    """Return the labels of each recorded series, in the order in which rules define them."""
    found: dict[str, set[str]] = {}
    for where, rule in rules():
        if "record" in rule:
            try:
                found[rule["record"]] = inferred(rule["expr"], found)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
    return found


def test_each_rule_and_dashboard_speaks_of_registered_series_and_labels(recorded: dict[str, set[str]]) -> None:
    wrong = []
    queries = [*rule_queries(), *dashboard_queries()]
    for query in queries:
        try:
            labels = inferred(query.text, recorded)
        except ValueError as error:
            wrong.append(f"{query.where}: {error}")
            continue
        if strange := set(query.named) - labels:
            wrong.append(f"{query.where}: the text names {sorted(strange)}, the result has {sorted(labels)}")
    assert not wrong, "\n".join(wrong)
    assert len(queries) > 100


def test_each_canary_analysis_speaks_of_registered_series_and_labels(
    render: Any, recorded: dict[str, set[str]]
) -> None:
    found = 0
    for values in sorted((CHARTS / "bento-service/ci").glob("*.yaml")):
        for manifest in render("bento-service", values):
            if manifest["kind"] == "AnalysisTemplate":
                for metric in manifest["spec"]["metrics"]:
                    inferred(metric["provider"]["prometheus"]["query"].replace("{{", "$").replace("}}", ""), recorded)
                    found += 1
    assert found >= 2


def test_recorded_series_are_named_by_their_labels(recorded: dict[str, set[str]]) -> None:
    """level:metric:operation, the level being the labels (prometheus.io/docs/practices/rules)."""
    for name, labels in recorded.items():
        level, metric, operation = name.split(":")
        # A version says which service it is of, a view which project; a namespace adds nothing to a service.
        implied = {"namespace", "project"} | ({"service_name"} if "service_version" in labels else set())
        rest = level
        for label in sorted(labels - implied, key=len, reverse=True):
            assert label.removesuffix("_name") in rest, (name, labels)
            rest = rest.replace(label.removesuffix("_name"), "", 1)
        assert not rest.strip("_"), (name, labels)
        assert operation
        assert any(
            known.name.startswith(re.sub("_(errors|slow|absent|progress_timestamp_seconds)$", "", metric))
            for known in registry().metrics
        ), name


def test_every_recorded_series_is_used(recorded: dict[str, set[str]]) -> None:
    texts = " ".join(query.text for query in (*rule_queries(), *dashboard_queries()))
    assert [name for name in recorded if not re.search(rf"{re.escape(name)}(?![\w:])", texts)] == []


def test_every_metric_is_looked_at_by_a_rule_or_a_dashboard() -> None:
    texts = " ".join(query.text for query in (*rule_queries(), *dashboard_queries()))
    unused = {m.name for m in registry().metrics if not any(re.search(rf"\b{name}\b", texts) for name in m.series)}
    assert unused == set()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rate(driftline_prediktion_count[5m])", "neither registered"),
        ('driftline_pipeline_runs_total{outcome="fail"}', "is never fail"),
        ('driftline_pipeline_runs_total{outcome=~"failed|broken"}', "is never broken"),
        ('driftline_pipeline_runs_total{run_id="1"}', "no label run_id"),
        ("sum by (version) (driftline_pipeline_runs_total)", "aggregated by"),
        ("sum by (use_case) (sum by (pipeline) (driftline_pipeline_runs_total))", "aggregated by"),
        ("histogram_quantile(0.9, sum by (use_case) (driftline_pipeline_run_duration_seconds_bucket))", "label le"),
        ("driftline_kfp_up * on (use_case) driftline_hold_active", "matched on"),
        ("driftline_pipeline_runs_total / driftline_kfp_up", "never equal"),
    ],
)
def test_a_query_about_nothing_is_found(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        inferred(text, {})
