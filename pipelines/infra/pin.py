"""`driftline infra pin`: a use case's folder as kustomize needs it, and its schedules on the versions in Git.

Kustomize takes no wildcards, so kustomization.yaml lists the files that are there. A schedule names the version that
was compiled into the same folder: "the newest" would not go back when Git does.
"""

import re
from pathlib import Path

import yaml

from components.core.errors import ConfigError
from components.core.storage import write_text
from pipelines.schedules.model import Schedule
from pipelines.schedules.read import read_schedule

HEADER = "# Written by `driftline infra pin`; do not edit.\n"
VERSION = re.compile(r"^version:.*$\n?", re.MULTILINE)


def use_case_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / "usecases").iterdir() if path.is_dir())


def pinned_files(folder: Path) -> dict[Path, str]:
    """Return the text that each machine-owned part of a use case's folder must have. Raises ConfigError.

    A schedule is changed only in its line `version`, and only where its pipeline is compiled.
    """
    versions = compiled_versions(folder)
    files, pinned = {}, []
    for path in schedule_files(folder):
        schedule, text = read_schedule(path), path.read_text(encoding="utf-8")
        version = versions.get(_pipeline(schedule))
        files[path] = text if version is None or version == schedule.version else _with_version(text, version)
        if version or schedule.version:
            pinned.append(path.name)
    return {folder / "kustomization.yaml": kustomization(folder, pinned)} | files


def pin(root: Path) -> list[Path]:
    """Bring each use case's folder up to date; return the files that changed. Repeating it changes nothing."""
    changed = []
    for folder in use_case_folders(root):
        for path, text in pinned_files(folder).items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                changed.append(path)
    return changed


def compiled_versions(folder: Path) -> dict[str, str]:
    """Return the pipelines compiled into a use case's folder, each with its version's name. Raises ConfigError."""
    versions = {}
    for path in compiled_files(folder):
        try:
            documents = [d for d in yaml.load_all(path.read_text("utf-8"), Loader=yaml.CSafeLoader) if d]
            found = {
                d["spec"]["pipelineName"]: d["metadata"]["name"] for d in documents if d["kind"] == "PipelineVersion"
            }
        except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} holds no compiled pipeline",
                measured=" ".join(str(error).split()),
                next_step=f"run `{compile_command(folder)}`",
            ) from error
        versions.update(found)
    return versions


def compile_command(folder: Path) -> str:
    return f"driftline compile --target kubernetes --use-case {folder.name} --output {folder / 'pipelines'}"


def compiled_files(folder: Path) -> list[Path]:
    return sorted((folder / "pipelines").glob("*.kubernetes.yaml"))


def schedule_files(folder: Path) -> list[Path]:
    return sorted((folder / "schedules").glob("*.y*ml"))


def kustomization(folder: Path, schedules: list[str]) -> str:
    """Return kustomization.yaml of a use case's folder: its pipelines, and a ConfigMap of schedules with a version.

    The controller refuses one without: a use case that is not compiled yet declares none.
    """
    name = folder.name.replace("_", "-")
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "kubeflow",
        "resources": [f"pipelines/{path.name}" for path in compiled_files(folder)],
        "configMapGenerator": [
            {
                "name": f"{name}-schedules",
                "files": [f"schedules/{name}" for name in schedules],
                "options": {
                    "disableNameSuffixHash": True,
                    "labels": {"driftline.dev/schedules": "true", "driftline.dev/use-case": folder.name},
                },
            }
        ],
    }
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=120)


def _pipeline(schedule: Schedule) -> str:
    return f"{schedule.use_case.replace('_', '-')}-{schedule.pipeline}"


def _with_version(text: str, version: str) -> str:
    line = f"version: {version}\n"
    if VERSION.search(text):
        return VERSION.sub(line, text, count=1)
    return text.rstrip("\n") + "\n" + line
