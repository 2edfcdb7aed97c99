"""Alerts fire when they must and are silent when they must not, as Prometheus' own promtool judges them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.metric_registry import registry

RULES = sorted((Path(__file__).parents[2] / "charts/observability/rules").glob("*.yaml"))
# Only strings: to YAML, promtool's 0x60 is the number 96.
CASES = yaml.load(Path(__file__).with_name("observability_cases.yaml").read_text(), Loader=yaml.BaseLoader)  # noqa: S506
BLIND = "MonitorDead"
"""The alert that fires when nothing is known."""


def minutes(text: str) -> int:
    return int(text[:-1]) * {"m": 1, "h": 60}[text[-1]]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        reason = "needs promtool (Debian's package prometheus)"
        if "promtool" in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}; DRIFTLINE_REQUIRE names promtool")
        pytest.skip(reason)
    return found


def alerts(files: list[Path] = RULES) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in files:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    found.setdefault(rule["alert"], []).append(rule)
    return found


def as_test(alert: str, case: dict[str, Any]) -> dict[str, Any]:
    """Return a case as promtool has it; the series of alerts that Prometheus itself writes are asked for."""
    every = case.get("every", "1m")
    window = f',window="{case["window"]}"' if "window" in case else ""
    firing = f'ALERTS{{alertstate="firing",alertname="{alert}"{window}}}'
    asked = []
    if "fires" in case:
        asked.append(
            {
                "expr": f"count({firing}) > bool 0",
                "eval_time": case["fires"],
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        )
    else:
        span = minutes(case["silent"]) - minutes(case.get("silent_from", "0m"))
        asked.append({"expr": f"count_over_time({firing}[{span}m])", "eval_time": case["silent"], "exp_samples": []})
    return {
        "interval": every,
        "name": f"{alert}: {case['case']}",
        "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
        "promql_expr_test": asked,
    }


def run(
    promtool: str, folder: Path, tests: list[dict[str, Any]], *, rules: list[Path] = RULES, every: str = "1m"
) -> subprocess.CompletedProcess[str]:
    path = folder / "cases.yaml"
    files = {"rule_files": [str(rule) for rule in rules], "evaluation_interval": every, "tests": tests}
    path.write_text(yaml.safe_dump(files))
    return subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)


def test_rules_are_valid(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", *map(str, RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_fires_when_it_must_and_only_then(promtool: str, tmp_path: Path, path: Path) -> None:
    here = [alert for alert, rules in alerts([path]).items() if rules]
    for every in ("1m", "5m"):
        cases = [(alert, case) for alert in here for case in CASES[alert] if case.get("every", "1m") == every]
        done = run(promtool, tmp_path, [as_test(*case) for case in cases], rules=[path], every=every)
        assert done.returncode == 0, done.stdout + done.stderr
    assert here


def test_each_alert_has_cases_of_both_kinds_for_each_of_its_rules() -> None:
    assert set(CASES) == set(alerts())
    for alert, rules in alerts().items():
        fires = [case for case in CASES[alert] if "fires" in case]
        windows = {rule["labels"].get("window") for rule in rules}
        assert {case.get("window") for case in fires} == windows, alert
        assert any("silent" in case for case in CASES[alert]), alert


def test_cases_speak_of_registered_series() -> None:
    known = registry().by_series()
    scraped = {"job", "instance", "namespace", "pod", "app_kubernetes_io_component", "le"}
    for cases in CASES.values():
        for case in cases:
            for series in case["series"]:
                name, _, labels = series.rstrip("}").partition("{")
                assert name in known, series
                given = {part.split("=")[0] for part in labels.split(",") if part}
                assert given <= {*known[name].labels, *scraped}, series


def test_without_any_series_only_the_dead_monitor_is_told(promtool: str, tmp_path: Path) -> None:
    asked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "8h",
        "exp_samples": [{"labels": f'{{alertname="{BLIND}"}}', "value": 1}],
    }
    done = run(promtool, tmp_path, [{"interval": "1m", "input_series": [], "promql_expr_test": [asked]}])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_that_is_wrong_is_found(promtool: str, tmp_path: Path) -> None:
    """The harness itself can fail, in both directions."""
    fires = next(case for case in CASES["PipelineFailing"] if "fires" in case)
    silent = next(case for case in CASES["PipelineFailing"] if "silent" in case)
    for wrong in ({**fires, "silent": fires["fires"]}, {**silent, "fires": silent["silent"]}):
        if wrong["case"] == fires["case"]:
            del wrong["fires"]
        else:
            del wrong["silent"]
        assert run(promtool, tmp_path, [as_test("PipelineFailing", wrong)]).returncode != 0


def test_each_alert_says_how_urgent_what_was_measured_and_what_is_allowed() -> None:
    for alert, rules in alerts().items():
        for rule in rules:
            assert rule["labels"]["severity"] in ("page", "ticket"), alert
            assert set(rule["annotations"]) == {"summary", "description"}, alert
            assert "allowed" in rule["annotations"]["description"], alert
            assert not rule["annotations"]["summary"].endswith("."), alert
    pages = {alert for alert, rules in alerts().items() for rule in rules if rule["labels"]["severity"] == "page"}
    assert pages == {"ModelErrorBudgetBurn", "ModelLatencyBurn", "KfpApiDown", "LedgerDown", "MonitorDead"}


def test_texts_of_alerts_are_rendered_with_their_values(promtool: str, tmp_path: Path) -> None:
    rule = alerts()["PipelineFailing"][0]
    expected = {
        "exp_labels": {"severity": "ticket", "use_case": "flights", "pipeline": "training"},
        "exp_annotations": {
            "summary": "training of flights fails",
            "description": "the newest 2 runs failed, allowed are 0; a run that a gate refused is not counted.",
        },
    }
    series = {
        "series": 'driftline_pipeline_consecutive_failures{use_case="flights",pipeline="training"}',
        "values": "2x20",
    }
    test = {
        "interval": "1m",
        "input_series": [series],
        "alert_rule_test": [{"eval_time": "10m", "alertname": rule["alert"], "exp_alerts": [expected]}],
    }
    done = run(promtool, tmp_path, [test])
    assert done.returncode == 0, done.stdout + done.stderr
