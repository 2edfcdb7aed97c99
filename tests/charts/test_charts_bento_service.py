"""What is special to charts/bento-service: releases, canary analysis, scraping, what a pod is told, the shadow."""

import ast
import copy
import json
import math
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.core.release import Release, ReleasedBento, ServingImage, render_release

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/bento-service"
SCHEMA = jsonschema.Draft202012Validator(json.loads((CHART / "values.schema.json").read_text()))
TMP = Path("/tmp")  # noqa: S108 - of a pod: its own empty folder
SETS = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "ci").glob("*.yaml")}


def by_kind(objects: list[Any], kind: str) -> list[Any]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def environment(template: Any) -> dict[str, Any]:
    return {entry["name"]: entry for entry in template["spec"]["containers"][0]["env"]}


# ---- releases
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
WORD = st.from_regex(r"\A[a-z][a-z0-9_]{0,30}[a-z0-9]\Z")
RELEASES = st.builds(
    Release,
    useCase=WORD,
    modelVersion=st.integers(1, 10**6),
    model=HEX,
    bento=st.builds(
        ReleasedBento,
        tag=st.builds("{}:{}-{}".format, WORD, st.integers(1, 999), HEX.map(lambda digest: digest[:12])),
        digest=HEX,
        uri=st.builds("{}{}.tar".format, st.sampled_from(["s3://bucket/prefix/bentos/", "/home/bentos/"]), HEX),
    ),
    image=st.builds(
        ServingImage,
        repository=st.sampled_from(
            ["registry.example.com/team/driftline-serve", "localhost:5000/driftline/driftline-serve", "ghcr.io/a/b.c"]
        ),
        digest=HEX.map("sha256:{}".format),
    ),
    verdict=HEX,
    runId=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,60}\Z"),
)


@settings(deadline=None)
@given(RELEASES)
def test_what_a_promotion_writes_is_a_values_file(release: Release) -> None:
    SCHEMA.validate(yaml.safe_load(render_release(release)))


@settings(deadline=None)
@given(RELEASES, st.data())
def test_a_release_that_a_hand_broke_is_refused(release: Release, data: st.DataObject) -> None:
    """A part left out, of another type, or one too many: by the chart, before anything is applied."""
    values = yaml.safe_load(render_release(release))
    place = values["release"]
    inner = data.draw(st.sampled_from(["", "bento", "image"]))
    place = place[inner] if inner else place
    key = data.draw(st.sampled_from(sorted(place)))
    wrong = data.draw(st.sampled_from(["absent", 3.5, None, [], "", " ", "latest", "more"]))
    if wrong == "absent":
        del place[key]
    elif wrong == "more":
        place["unheardOf"] = 1
    elif wrong == "latest" and key in {"runId", "uri", "useCase"}:
        return  # a word is one of these
    else:
        place[key] = wrong
    assert list(SCHEMA.iter_errors(values))


WRONG_ADDRESSES = (
    "bentos/",
    "./bentos/",
    "s3:///",
    "s3://",
    "s3:/models/",
    "http://models/",
    "models://b/",
    "//b/",
    " /b/",
    "",
)


@settings(deadline=None)
@given(RELEASES, st.sampled_from(WRONG_ADDRESSES))
def test_an_archive_that_no_pod_would_find_is_refused(release: Release, place: str) -> None:
    """A path relative to somebody's home, or the address of a store that nothing here speaks to."""
    values = yaml.safe_load(render_release(release))
    values["release"]["bento"]["uri"] = f"{place}{release.bento.digest}.tar"
    (error,) = SCHEMA.iter_errors(values)
    assert error.json_path == "$.release.bento.uri"
    with pytest.raises(ValidationError, match="uri"):
        ReleasedBento(tag=release.bento.tag, digest=release.bento.digest, uri=values["release"]["bento"]["uri"])


def test_helm_says_which_value_is_wrong(render: Any, helm: ModuleType) -> None:
    values = copy.deepcopy(SETS["local"])
    values["release"]["image"]["digest"] = "latest"
    with pytest.raises(helm.RenderError, match=r"/release/image/digest.*does not match pattern"):
        render("bento-service", values)
    with pytest.raises(helm.RenderError, match="missing propert"):
        render("bento-service", {})


def test_two_releases_in_a_namespace_share_no_object(render: Any) -> None:
    one, other = (render("bento-service", SETS["prod"], name=name) for name in ("flights", "flights-b"))
    names = [{(m["kind"], m["metadata"]["name"]) for m in objects} for objects in (one, other)]
    assert not names[0] & names[1]
    selector = by_kind(one, "Rollout")[0]["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= by_kind(other, "Rollout")[0]["spec"]["template"]["metadata"]["labels"].items()


# ---- pods
def test_a_pod_is_told_what_serving_needs_and_no_more(render: Any) -> None:
    """Six keys by name: the Secret may hold the ledger's password, which is none of serving's business."""
    for name, values in SETS.items():
        for manifest in render("bento-service", values):
            if manifest["kind"] not in {"Deployment", "Rollout"}:
                continue
            container = manifest["spec"]["template"]["spec"]["containers"][0]
            assert "envFrom" not in container
            told = environment(manifest["spec"]["template"])
            referred = {key for key, entry in told.items() if "valueFrom" in entry}
            assert referred == {
                *("DRIFTLINE_OBJECT_STORE_URL", "AWS_ENDPOINT_URL", "AWS_REGION"),
                *("DRIFTLINE_ONLINE_STORE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            }, name
            secrets = {key for key in referred if "secretKeyRef" in told[key]["valueFrom"]}
            assert secrets == {"DRIFTLINE_ONLINE_STORE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, name
            # A pod that came before its Secret waits: an empty store of its own would know no entity.
            references = {key: next(iter(told[key]["valueFrom"].values())) for key in referred}
            waits_for = {key for key, reference in references.items() if not reference.get("optional")}
            assert waits_for == {"DRIFTLINE_ONLINE_STORE_URL"}, name


def test_a_pod_fetches_the_released_bento_and_writes_below_tmp_only(render: Any) -> None:
    release = SETS["prod"]["release"]
    template = by_kind(render("bento-service", SETS["prod"]), "Rollout")[0]["spec"]["template"]
    told = {key: entry.get("value") for key, entry in environment(template).items()}
    assert told["DRIFTLINE_BENTO"] == release["bento"]["uri"]
    assert told["DRIFTLINE_BENTO_DIGEST"] == release["bento"]["digest"]
    for home in ("HOME", "BENTOML_HOME", "DRIFTLINE_HOME"):
        assert Path(str(told[home])).is_relative_to(TMP)
    container = template["spec"]["containers"][0]
    assert container["image"] == f"{release['image']['repository']}@{release['image']['digest']}"
    writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    assert writable == [str(TMP)]
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300
    assert template["spec"]["terminationGracePeriodSeconds"] == 60
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] + 8 < 60


@pytest.mark.parametrize("source", ["configMap", "existingSecret"])
def test_a_signature_is_demanded_with_the_key_that_is_mounted(render: Any, source: str) -> None:
    values = {**SETS["local"], "modelSignature": {source: "signing", "key": "models.pem"}}
    template = by_kind(render("bento-service", values), "Deployment")[0]["spec"]["template"]
    path = Path(environment(template)["DRIFTLINE_MODEL_VERIFYING_KEY"]["value"])
    mount = next(m for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] == "model-signature")
    assert path == Path(mount["mountPath"]) / "models.pem"
    assert mount["readOnly"] is True
    plain = by_kind(render("bento-service", SETS["local"]), "Deployment")[0]["spec"]["template"]
    assert "DRIFTLINE_MODEL_VERIFYING_KEY" not in environment(plain)


def test_port_and_endpoints_are_those_of_the_service(render: Any) -> None:
    from components.serve.container import PORT

    source = ast.parse((ROOT / "components/serve/service.py").read_text())
    served = {
        f"/{node.name}"
        for node in ast.walk(source)
        if isinstance(node, ast.AsyncFunctionDef) and "bentoml.api" in " ".join(map(ast.unparse, node.decorator_list))
    }
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())["metrics"]["endpoints"]) == served
    services = by_kind(render("bento-service", SETS["local"]), "Service")
    assert [port["port"] for port in services[0]["spec"]["ports"]] == [PORT]


# ---- strategies
@pytest.mark.parametrize(
    ("name", "kind", "services"),
    [
        ("local", "Deployment", ["flights-bento-service"]),
        ("staging", "Rollout", [f"flights-bento-service{suffix}" for suffix in ("", "-stable", "-canary")]),
        ("blue-green", "Rollout", [f"flights-bento-service{suffix}" for suffix in ("", "-preview")]),
    ],
)
def test_the_strategy_decides_what_runs_the_pods(render: Any, name: str, kind: str, services: list[str]) -> None:
    objects = render("bento-service", SETS[name])
    assert [m["kind"] for m in objects if m["kind"] in {"Deployment", "Rollout"}] == [kind]
    assert [m["metadata"]["name"] for m in by_kind(objects, "Service")] == services
    assert len(by_kind(objects, "AnalysisTemplate")) == (kind == "Rollout")


def test_each_step_of_a_canary_is_analysed_and_the_services_exist(render: Any) -> None:
    objects = render("bento-service", SETS["prod"])
    canary = by_kind(objects, "Rollout")[0]["spec"]["strategy"]["canary"]
    services = {m["metadata"]["name"] for m in by_kind(objects, "Service")}
    assert {canary["stableService"], canary["canaryService"]} <= services
    kinds = [next(iter(step)) for step in canary["steps"]]
    assert kinds == ["setWeight", "pause", "analysis", "setWeight", "analysis", "setWeight", "analysis"]
    analysis = canary["steps"][2]["analysis"]
    template = by_kind(objects, "AnalysisTemplate")[0]
    assert [t["templateName"] for t in analysis["templates"]] == [template["metadata"]["name"]]
    assert {a["name"] for a in analysis["args"]} == {a["name"] for a in template["spec"]["args"]}
    assert analysis["args"][0]["value"] == SETS["prod"]["release"]["bento"]["tag"].partition(":")[2]
    route = by_kind(objects, "HTTPRoute")[0]
    assert canary["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]["httpRoute"] == route["metadata"]["name"]
    backends = route["spec"]["rules"][0]["backendRefs"]
    assert {b["name"]: b["weight"] for b in backends} == {canary["stableService"]: 100, canary["canaryService"]: 0}


def test_a_router_without_a_route_is_refused(render: Any, helm: ModuleType) -> None:
    values = copy.deepcopy(SETS["prod"])
    values["httpRoute"]["enabled"] = False
    with pytest.raises(helm.RenderError, match=r"httpRoute.enabled is false; next step"):
        render("bento-service", values)


# ---- analysis
def metrics(render: Any, **analysis: Any) -> dict[str, Any]:
    values = {**SETS["staging"], "analysis": {"minimumRequests": 100, "windowSeconds": 120, **analysis}}
    template = by_kind(render("bento-service", values), "AnalysisTemplate")[0]
    return {metric["name"]: metric for metric in template["spec"]["metrics"]}


def phase(metric: Any, answer: list[float]) -> str:
    """Return what Argo Rollouts makes of an answer: both conditions are given, so neither means inconclusive."""

    def holds(condition: str) -> bool:
        python = condition.replace("&&", " and ").replace("!isNaN", "not isNaN")
        return bool(eval(python, {"len": len, "isNaN": math.isnan, "result": answer}))  # noqa: S307 - our own chart's

    if holds(metric["failureCondition"]):
        return "Failed"
    return "Successful" if holds(metric["successCondition"]) else "Inconclusive"


def test_no_answer_is_neither_good_nor_bad(render: Any) -> None:
    for name, metric in metrics(render).items():
        limit = float(re.findall(r"<= ([0-9.]+)", metric["successCondition"])[0])
        cases = [([], "Inconclusive"), ([math.nan], "Inconclusive"), ([0.0], "Successful"), ([limit], "Successful")]
        cases += [([limit + 1e-9], "Failed"), ([math.inf], "Failed"), ([-1.0], "Successful")]
        assert [phase(metric, answer) for answer, _ in cases] == [wanted for _, wanted in cases], name
        assert metric["inconclusiveLimit"] >= 0
        assert int(metric["initialDelay"].removesuffix("s")) >= 15
        # Argo Rollouts (seen with 1.9.2) refuses a step's analysis without an end. The end must come after too many
        # answers of nothing have ended it as not known; even then it is no success without the successes in a row.
        assert metric["count"] > metric["inconclusiveLimit"]
        assert metric["consecutiveSuccessLimit"] >= 1


SERIES = 'bentoml_service_request_total{{namespace="ml-flights",service_name="flights",runner_name="flights",{}}}'
BUCKET = SERIES.replace("request_total", "request_duration_seconds_bucket")
NEW, OLD = 'service_version="4-aaaaaaaaaaaa"', 'service_version="3-aaaaaaaaaaaa"'


def requests(version: str, code: int, per_scrape: int, endpoint: str = "/predict", more: str = "") -> dict[str, str]:
    labels = f'{version},endpoint="{endpoint}",http_response_code="{code}"{more}'
    return {"series": SERIES.format(labels), "values": f"0+{per_scrape}x20"}


def buckets(version: str, within: dict[str, int]) -> list[dict[str, str]]:
    labels = f'{version},endpoint="/predict",http_response_code="200",le='
    return [{"series": BUCKET.format(f'{labels}"{le}"'), "values": f"0+{n}x20"} for le, n in within.items()]


STABLE = [requests(OLD, 200, 90), requests(OLD, 500, 10)]
SHADOW = ',app_kubernetes_io_component="shadow"'
RATIO, P99 = "error-ratio-above-stable", "p99-seconds"


@pytest.mark.parametrize("kind", ["canary", "blueGreen"])
def test_going_back_takes_no_steps(render: Any, kind: str) -> None:
    """Argo Rollouts keeps the older ReplicaSets that it would go back to."""
    (rollout,) = by_kind(render("bento-service", SETS["prod"], {"strategy": {"kind": kind}}), "Rollout")
    assert 0 < rollout["spec"]["rollbackWindow"]["revisions"] < rollout["spec"]["revisionHistoryLimit"]
    assert rollout["spec"]["progressDeadlineAbort"] is True


def test_an_analysis_ends_after_its_limits_could_all_be_reached(render: Any) -> None:
    found = metrics(render, successes=3, failures=2, inconclusive=7)
    # Two failures, each before the third success in a row, and seven answers of nothing.
    assert {metric["count"] for metric in found.values()} == {7 + 3 * (2 + 1)}


@pytest.mark.parametrize(
    ("metric", "series", "answer"),
    [
        pytest.param(RATIO, STABLE, [], id="no canary yet"),
        # BentoML starts every declared endpoint's series at nothing.
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 0)], [], id="nobody asked the canary"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 4)], [], id="too few requests"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 50, "/readyz")], [], id="probes are no requests"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 404, 50, "/wp-admin")], [], id="nor are scanners"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 50, more=SHADOW)], [], id="nor is a shadow"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 50)], [-0.1], id="better than stable"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 200, 40), requests(NEW, 503, 10)], [0.1], id="worse than stable"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 503, 50)], [0.9], id="all wrong"),
        pytest.param(RATIO, [requests(NEW, 200, 40), requests(NEW, 500, 10)], [0.2], id="no stable traffic"),
        pytest.param(RATIO, [requests(OLD, 200, 0), requests(NEW, 200, 50)], [0], id="a stable that nobody asks"),
        pytest.param(RATIO, [*STABLE, requests(NEW, 422, 50)], [-0.1], id="a caller's mistake is no error"),
        pytest.param(P99, [requests(NEW, 200, 50)], [], id="no durations"),
        pytest.param(P99, [requests(NEW, 200, 4), *buckets(NEW, {"1": 4, "+Inf": 4})], [], id="too few durations"),
        pytest.param(
            P99, [requests(NEW, 200, 100), *buckets(NEW, {"0.1": 98, "0.2": 100, "+Inf": 100})], [0.15], id="p99"
        ),
        pytest.param(
            P99,
            [requests(NEW, 200, 100), *buckets(NEW, {"0.1": 100, "+Inf": 100}), *buckets(OLD, {"0.1": 0, "+Inf": 99})],
            [0.099],
            id="stable's durations do not count",
        ),
    ],
)
def test_the_queries_answer_what_the_analysis_asks(
    render: Any, promtool: str, tmp_path: Path, metric: str, series: list[dict[str, str]], answer: list[float]
) -> None:
    """By Prometheus itself, on series as BentoML 1.4 exports them: a scrape each 15 s, asked after 5 minutes."""
    query = metrics(render)[metric]["provider"]["prometheus"]["query"]
    query = query.replace("{{args.version}}", "4-aaaaaaaaaaaa")
    assert "{{" not in query
    expected = [{"labels": "{}", "value": value} for value in answer]
    asked = [{"expr": f"round({query}, 0.001)", "eval_time": "5m", "exp_samples": expected}]
    test = {"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": asked}]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    command = [promtool, "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_tell_new_from_old_where_the_version_cannot(render: Any) -> None:
    """A release that changes the image alone has the version of the one before."""
    for metric in metrics(render, splitBy="podTemplateHash").values():
        query = metric["provider"]["prometheus"]["query"]
        assert 'rollouts_pod_template_hash="{{args.hash}}"' in query
        assert "service_version" not in query


# ---- what is scraped
def relabelled(rules: list[Any], labels: dict[str, str]) -> dict[str, str] | None:
    """Return a series' labels after Prometheus' <relabel_config> rules, None when it is dropped."""
    labels = dict(labels)
    for rule in rules:
        if rule["action"] == "labeldrop":
            labels = {k: v for k, v in labels.items() if not re.fullmatch(rule["regex"], k)}
            continue
        matches = re.fullmatch(rule["regex"], ";".join(labels.get(name, "") for name in rule["sourceLabels"]))
        if rule["action"] == "drop" and matches:
            return None
        if rule["action"] == "replace" and matches:
            labels[rule["targetLabel"]] = rule["replacement"]
    return labels


@pytest.mark.parametrize(
    ("name", "endpoint", "kept"),
    [
        ("bentoml_service_request_total", "/predict", True),
        ("bentoml_service_request_duration_seconds_bucket", "/predict_ready", True),
        ("bentoml_service_request_total", "/readyz", False),
        ("bentoml_service_request_in_progress", "/wp-admin/setup.php", False),
        ("bentoml_service_request_total", "/predict/../predict", False),
        ("driftline_prediction_bucket", None, True),
        ("driftline_model_info", None, True),
    ],
)
def test_paths_that_callers_invent_make_no_series(render: Any, name: str, endpoint: str | None, kept: bool) -> None:
    monitor = by_kind(render("bento-service", SETS["staging"]), "ServiceMonitor")[0]
    labels = {"__name__": name} | ({"endpoint": endpoint} if endpoint else {})
    after = relabelled(monitor["spec"]["endpoints"][0]["metricRelabelings"], labels)
    assert after == (labels if kept else None)


def test_a_pod_is_scraped_once(render: Any) -> None:
    """Of the services that a Rollout needs, one is for the monitor: else each pod would be counted twice."""
    objects = render("bento-service", SETS["staging"])
    wanted = by_kind(objects, "ServiceMonitor")[0]["spec"]["selector"]["matchLabels"].items()
    found = [m["metadata"]["name"] for m in by_kind(objects, "Service") if wanted <= m["metadata"]["labels"].items()]
    assert found == ["flights-bento-service"]
    template = by_kind(objects, "Rollout")[0]["spec"]["template"]
    assert "prometheus.io/scrape" not in template["metadata"]["annotations"]


# ---- shadow
def test_a_shadow_gets_copies_and_nobody_else_reaches_it(render: Any) -> None:
    objects = render("bento-service", SETS["shadow"])
    main, shadow = by_kind(objects, "Deployment")[::-1]
    if main["metadata"]["name"].endswith("-shadow"):
        main, shadow = shadow, main
    url = environment(main["spec"]["template"])["DRIFTLINE_SHADOW_URL"]["value"]
    service = next(m for m in by_kind(objects, "Service") if m["metadata"]["name"].endswith("-shadow"))
    assert url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    told = environment(shadow["spec"]["template"])
    assert "DRIFTLINE_SHADOW_URL" not in told, "a shadow has no shadow"
    assert told["DRIFTLINE_BENTO"]["value"] == SETS["shadow"]["shadow"]["release"]["bento"]["uri"]
    # Monitoring reads the log of what was answered: the shadow's must lie elsewhere.
    assert Path(told["DRIFTLINE_INFERENCE_LOG"]["value"]) == TMP / "driftline/shadow"
    policy = next(m for m in by_kind(objects, "NetworkPolicy") if m["metadata"]["name"].endswith("-shadow"))
    callers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"] if "podSelector" in peer]
    assert [peer["podSelector"]["matchLabels"] for peer in callers] == [main["spec"]["selector"]["matchLabels"]]


def test_a_shadow_of_another_use_case_is_refused(render: Any, helm: ModuleType) -> None:
    values = copy.deepcopy(SETS["shadow"])
    values["shadow"]["release"]["useCase"] = "wind"
    with pytest.raises(helm.RenderError, match=r'shadow.release is of use case "wind".*next step'):
        render("bento-service", values)
    del values["shadow"]["release"]
    with pytest.raises(helm.RenderError, match="/shadow/release"):
        render("bento-service", values)
