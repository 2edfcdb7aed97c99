"""The reports of a run, under names that a browser opens."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.core.settings import Settings
from components.core.verdict import Verdict, read_verdict
from pipelines.local import RunRecord

# Step and output artifact to file name; KFP's own file names have no ending.
REPORTS = {
    ("validate", "page"): "data-report.html",
    ("evaluate", "report"): "gate-report.html",
    ("evaluate", "card"): "model-card.md",
    ("package", "probe"): "probe.md",
    ("monitor", "page"): "monitor.html",
    ("monitor", "report"): "evidently.html",
}


def artifact(record: RunRecord, step: str, name: str) -> Path | None:
    """Return the path of a step's output artifact, if the step wrote it."""
    for done in record.steps:
        if done.name == step:
            listed = done.inputs.get("outputs", {}).get("artifacts", {}).get(name, {}).get("artifacts", [])
            paths = [Path(item["uri"]) for item in listed]
            return paths[0] if paths and paths[0].exists() else None
    return None


def metrics(record: RunRecord, step: str) -> dict[str, float]:
    """Return what a step measured, its output `metrics`; nothing when it did not finish."""
    for done in record.steps:
        if done.name == step:
            # KFP keeps metrics in the metadata of the artifact, not in a file of their own.
            path = Path(done.inputs.get("outputs", {}).get("outputFile", ""))
            if path.is_file():
                written = json.loads(path.read_text(encoding="utf-8")).get("artifacts", {}).get("metrics", {})
                return {k: v for item in written.get("artifacts", []) for k, v in item["metadata"].items()}
    return {}


def output(record: RunRecord, step: str) -> Any:
    """Return what a step returned; None when it did not finish."""
    for done in record.steps:
        path = Path(done.inputs.get("outputs", {}).get("outputFile", ""))
        if done.name == step and path.is_file():
            return json.loads(path.read_text(encoding="utf-8")).get("parameterValues", {}).get("Output")
    return None


def verdict(record: RunRecord, step: str) -> Verdict | None:
    """Return the verdict that a judging step wrote."""
    path = artifact(record, step, "verdict")
    return read_verdict(path) if path else None


def publish_reports(settings: Settings, record: RunRecord) -> None:
    """Copy what a run reported into its folder."""
    for (step, name), file in REPORTS.items():
        path = artifact(record, step, name)
        if path and path.stat().st_size:
            shutil.copyfile(path, settings.runs / record.id / file)


def published_reports(settings: Settings, run_key: str) -> list[Path]:
    """Return the reports of a run."""
    return [p for p in (settings.runs / run_key / file for file in REPORTS.values()) if p.is_file()]
