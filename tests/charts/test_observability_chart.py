"""The chart: what it renders, whether dashboards can be read, and whether every alert has its runbook."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/observability"
RUNBOOKS = ROOT / "docs/runbooks"
SETS = sorted((CHART / "ci").glob("*.yaml"))
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
PANELS = {"timeseries", "stat", "state-timeline", "heatmap"}
# Grafana's ids of units (packages/grafana-data/src/valueFormats/categories.ts).
UNITS = {"none", "short", "s", "percentunit", "reqps", "ops", "bytes", "dateTimeAsIso"}
Render = Callable[..., list[dict[str, Any]]]


def rule_files() -> dict[str, Any]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "rules").glob("*.yaml"))}


def alert_names() -> set[str]:
    groups = [group for file in rule_files().values() for group in file["groups"]]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def rendered_rules(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rules of both forms."""
    specs = [o["spec"] for o in objects if o["kind"] == "PrometheusRule"]
    for o in objects:
        if o["kind"] == "ConfigMap":
            specs += [yaml.safe_load(text) for name, text in o["data"].items() if name.endswith(".yaml")]
    return [rule for spec in specs for group in spec["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem)
def test_objects_are_valid_and_hold_every_rule_and_dashboard(
    render: Render, check: Callable[[list[dict[str, Any]]], None], values: Path
) -> None:
    objects = render("observability", values, name="observability", namespace="monitoring")
    check(objects)
    excluded = set(yaml.safe_load(values.read_text())["rules"].get("exclude", []))
    rules = rendered_rules(objects)
    assert {rule["alert"] for rule in rules if "alert" in rule} == alert_names() - excluded
    as_written = [r for file in rule_files().values() for g in file["groups"] for r in g["rules"]]
    for rule in rules:
        if "alert" in rule:
            url = rule["annotations"].pop("runbook_url")
            assert (RUNBOOKS / url.removeprefix("https://git.example.com/team/driftline/docs/runbooks/")).is_file()
        assert rule in as_written
    boards = [o for o in objects if o["metadata"]["labels"].get("grafana_dashboard") == "1"]
    texts = {name: text for o in boards for name, text in o["data"].items()}
    assert {name: json.loads(text) for name, text in texts.items()} == {
        f"driftline-{path.name}": json.loads(path.read_text()) for path in DASHBOARDS
    }


def test_series_of_single_runs_are_dropped_where_kfp_is_scraped(render: Render) -> None:
    objects = render("observability", CHART / "ci/prod.yaml", name="observability", namespace="monitoring")
    monitors = {
        o["metadata"]["name"].removeprefix("observability-"): o["spec"] for o in objects if o["kind"] == "PodMonitor"
    }
    assert set(monitors) == {"kfp", "argo-workflows", "mlflow"}
    drop = next(r for r in monitors["kfp"]["podMetricsEndpoints"][0]["metricRelabelings"] if r["action"] == "drop")
    kept = ["resource_manager_recurring_run_report_gap_bucket", "resource_manager_workflow_gc", "run_server_run_count"]
    for name in ("resource_manager_workflow_runs_success", "resource_manager_workflow_runs_failed"):
        assert re.fullmatch(drop["regex"], name)
    assert not any(re.fullmatch(drop["regex"], name) for name in kept)


def test_an_unknown_value_a_missing_address_and_an_unknown_alert_are_refused(helm: Any, render: Render) -> None:
    url = {"runbookBaseUrl": "https://git.example.com/runbooks"}
    for wrong in (
        {},
        {**url, "rule": {}},
        {"runbookBaseUrl": "https://git.example.com/runbooks/"},
        {**url, "rules": {"exclude": ["PipelineFailing"]}},
        {**url, "rules": {"kind": "secret"}},
    ):
        with pytest.raises(helm.RenderError):
            render("observability", wrong)
    assert render("observability", url)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_read(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"driftline-{path.stem}"
    assert board["title"].startswith("Driftline / ")
    assert board["description"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert "use_case" in variables
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in PANELS
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["expr"].strip(), panel["title"]
            assert target["legendFormat"].strip(), panel["title"]
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    texts = json.dumps(board)
    for name in re.findall(r"\$\{?(\w+)", texts):
        assert name in variables or name.startswith("__"), f"variable {name} is not declared"


def test_the_drift_timeline_shows_commits_and_retrainings() -> None:
    notes = json.loads((CHART / "dashboards/drift.json").read_text())["annotations"]["list"]
    assert [note["name"] for note in notes] == ["Releases (Git commits)", "Retrainings requested"]
    assert "{{commit}}" in notes[0]["textFormat"]
    assert notes[0]["useValueForTime"] is True
    assert notes[0]["expr"].endswith("* 1000")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == alert_names()
    listed = re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text())
    assert sorted(listed) == sorted(alert_names())


@pytest.mark.parametrize("name", sorted(alert_names()))
def test_a_runbook_says_what_to_do(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert parts[1::2] == ["What it means", "First three commands", "How to undo it", "When to escalate"]
    assert all(part.strip() for part in parts[2::2])
    assert len(commands(text)) == 3
    severities = {
        rule["labels"]["severity"]
        for file in rule_files().values()
        for group in file["groups"]
        for rule in group["rules"]
        if rule.get("alert") == name
    }
    assert re.match(r"\*\*(.+?)\*\*", parts[0].splitlines()[2]), parts[0]
    assert set(re.match(r"\*\*(.+?)\*\*", parts[0].splitlines()[2])[1].lower().split(" and ")) == severities


def commands(runbook: str) -> list[str]:
    block = re.search(r"## First three commands\n+```\n(.*?)```", runbook, re.DOTALL)
    assert block, runbook
    return [line.split("  #")[0].strip() for line in block[1].splitlines() if line.strip()]


def quoted(runbook: str) -> list[str]:
    """Return the commands of ours within sentences."""
    prose = re.sub(r"```.*?```", "", runbook, flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`(driftline [^`]+)`", prose)]


@pytest.mark.parametrize(
    "path", sorted(path for path in RUNBOOKS.glob("*.md") if path.stem != "README"), ids=lambda p: p.stem
)
def test_the_commands_of_a_runbook_exist(path: Path) -> None:
    from pipelines.cli import group

    text = path.read_text()
    for line in commands(text):
        assert line.split()[0] in {"driftline", "kubectl", "git"}, line
    for line in [line for line in (*commands(text), *quoted(text)) if line.startswith("driftline ")]:
        command: click.Command = group
        words = shlex.split(line)[1:]
        context = click.Context(group, info_name="driftline")
        while isinstance(command, click.Group):
            _name, found, words = command.resolve_command(context, words)
            assert found is not None, line
            command = found
        # Parses, converts and requires; a missing argument or an unknown option raises.
        command.make_context(line, words, parent=context)


def test_a_command_that_does_not_exist_is_found() -> None:
    from pipelines.cli import group

    context = click.Context(group, info_name="driftline")
    with pytest.raises(click.UsageError):
        group.resolve_command(context, ["decide"])
    _name, command, _words = group.resolve_command(context, ["dispatch"])
    assert command is not None
    with pytest.raises(click.UsageError):
        command.make_context("dispatch", ["--now"], parent=context)
