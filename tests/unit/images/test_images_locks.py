"""What the images hold is what pyproject.toml asks for, in the versions that the tests ran with, and nothing else."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
IMAGES = ("cpu", "gpu", "serve")
# A server has no use for an orchestrator, a tracker, a trainer, an analysis or an installer.
NOT_SERVED = {
    "alembic", "duckdb", "evidently", "fairlearn", "great-expectations", "kfp", "kfp-kubernetes", "kubernetes",
    "matplotlib", "mlflow", "mlflow-skinny", "mypy", "optuna", "pip", "scikit-learn", "scipy", "setuptools", "torch",
    "uv", "xgboost", "xgboost-cpu",
}  # fmt: skip


def locked(name: str) -> dict[str, str]:
    """Return package to version of a lock, on Linux with Python 3.11."""
    found = {}
    environment: dict[str, Any] = {
        **default_environment(), "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
        "os_name": "posix", "python_version": "3.11", "python_full_version": "3.11.9",
    }  # fmt: skip
    for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (pin,) = requirement.specifier
                found[canonicalize_name(requirement.name)] = pin.version
    return found


def asked() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"] | project["project"]["optional-dependencies"]
    return [Requirement(line) for line in project["project"]["dependencies"]], {
        name: [Requirement(line) for line in lines] for name, lines in groups.items()
    }


def missing(requirements: list[Requirement], lock: dict[str, str]) -> list[str]:
    """Return the requirements for Linux that a lock does not fulfil."""
    return [
        str(requirement)
        for requirement in requirements
        if (requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}))
        and not requirement.specifier.contains(lock.get(canonicalize_name(requirement.name), "0.dev0"))
    ]


def test_the_locks_fulfil_what_the_project_asks_for() -> None:
    steps, groups = asked()
    assert missing(steps, locked("cpu")) == []
    without_cpu_build = [r for r in steps if r.name != "xgboost-cpu"]
    assert missing(without_cpu_build + groups["torch"] + groups["gpu"], locked("gpu")) == []
    assert missing(groups["serve"], locked("serve")) == []
    assert missing([Requirement("kfp==2.16.1")], locked("cpu")) == ["kfp==2.16.1"], "the check sees a wrong version"


def test_one_module_comes_from_one_package() -> None:
    assert "xgboost" in locked("gpu")
    assert "xgboost-cpu" not in locked("gpu")
    assert "xgboost" not in locked("cpu")


@pytest.mark.parametrize(
    ("image", "environment"), [("cpu", "dev"), ("gpu", "torch"), ("serve", "dev"), ("serve", "cpu")]
)
def test_images_hold_the_versions_that_were_tested(image: str, environment: str) -> None:
    tested = locked(environment)
    differing = {name: version for name, version in locked(image).items() if tested.get(name, version) != version}
    assert differing == {}


def test_serving_holds_nothing_for_training() -> None:
    assert NOT_SERVED.isdisjoint(locked("serve"))
    assert len(locked("serve")) < len(locked("cpu")) / 2


@pytest.mark.parametrize(("excludes", "images"), [("image", IMAGES), ("gpu", ("gpu",)), ("serve", ("serve",))])
def test_what_is_excluded_is_not_there(excludes: str, images: tuple[str, ...]) -> None:
    lines = (ROOT / "requirements" / f"{excludes}-excludes.txt").read_text(encoding="utf-8").splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    assert names
    for image in images:
        assert names.isdisjoint(locked(image))


@pytest.mark.parametrize("lock", [*IMAGES, "build", "uv", "dev", "torch"])
def test_every_pin_has_a_hash_and_none_names_a_registry(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, flags=re.MULTILINE)
    assert pins
    assert [pin.split("\n")[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert "://" not in text
