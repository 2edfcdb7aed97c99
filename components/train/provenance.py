"""Which code and which library trained a model."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components.core.digests import json_digest
from components.core.sections import Problem, Train


def code_commit(source: Path = Path(__file__)) -> str:
    """Return the Git commit of a source file: of its image, of its checkout, or the empty text outside both."""
    built = source.resolve().parents[2] / "REVISION"
    if built.is_file():
        return built.read_text(encoding="utf-8").strip()
    git = shutil.which("git")
    if git is None:
        return ""

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(source.parent), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        return answer.stdout.strip() if answer.returncode == 0 else ""

    # An installed copy may lie inside another project's checkout; its commit says nothing about this code.
    return ask("rev-parse", "HEAD") if ask("ls-files", "--", source.name) else ""


def training_key(training_set: str, problem: Problem, config: Train, **more: object) -> str:
    """Return a digest of everything that decides what a training learns: it names what may be resumed."""
    sections = {"problem": problem.model_dump(mode="json"), "train": config.model_dump(mode="json")}
    return json_digest(sections | {"training_set": training_set, "library": _library(config.trainer.kind)} | more)[:32]


def _library(kind: str) -> str:
    """Return name and release of the library behind a trainer, or the empty text when it is not installed."""
    for name in ("xgboost-cpu", "xgboost") if kind == "xgboost" else ("torch",):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""
