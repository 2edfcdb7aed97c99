"""Charts rendered by Helm itself and checked against schemas; what other tests of charts use is here.

`render(chart, values...)` gives objects, `check(objects)` fails on what three Kubernetes releases or the definition of
a custom resource would refuse. Without Helm or Go a test skips, unless DRIFTLINE_REQUIRE names `helm` or `crds`.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

CHARTS = Path(__file__).parents[2] / "charts"
INFRA = CHARTS.parent / "infra"
ENVIRONMENTS = ("local", "staging", "prod")
APPLICATIONS = sorted(
    path.parent.name for path in CHARTS.glob("*/Chart.yaml") if "type: library" not in path.read_text()
)
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """A chart with one of its value sets, or with what an environment of the infrastructure tree gives it."""

    chart: str
    values: tuple[Path, ...]
    objects: list[Manifest]


def _value_sets() -> list[Any]:
    """Return chart and value files of every `ci/` set, and of every use case's serving in each environment."""
    sets = [
        pytest.param((chart, (path,)), id=f"{chart}-{path.stem}")
        for chart in APPLICATIONS
        for path in sorted((CHARTS / chart / "ci").glob("*.yaml"))
    ]
    # A use case that was never promoted has no release: its people's values are tried with one of the examples.
    example = CHARTS / "bento-service/ci/local.yaml"
    for people in sorted(INFRA.glob("usecases/*/envs/*/values.yaml")):
        release = people.with_name("release.yaml")
        files = (people, release) if release.is_file() else (example, people)
        sets.append(pytest.param(("bento-service", files), id=f"{people.parts[-4]}-{people.parts[-2]}"))
    return sets


def _load(name: str) -> ModuleType:
    """Import a file beside this one, once; tests have no packages."""
    full = f"driftline_charts_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def _missing(part: str, reason: str) -> None:
    if part in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
        pytest.fail(f"{reason}; DRIFTLINE_REQUIRE names {part}")
    pytest.skip(reason)


def merge(*values: Manifest) -> Manifest:
    """Return values as Helm merges value files: objects deeply, everything else replaced."""
    merged: Manifest = {}
    for one in values:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


@pytest.fixture(scope="session")
def helm() -> ModuleType:
    """Return the Helm engine: `render`, `lint`, `RenderError`."""
    engine = _load("helm_engine")
    if not engine.is_installed():
        _missing("helm", "needs helm-python-sdk (pip install helm-python-sdk) or a helm program")
    return engine


@pytest.fixture(scope="session")
def render(helm: ModuleType) -> Callable[..., list[Manifest]]:
    """Return render(chart, *values, name="flights", namespace="ml-flights") -> objects in template order.

    `chart` is a folder's name under charts/; a value is a dict or a path to a YAML file, later ones win.
    """

    def render_chart(
        chart: str, *values: Manifest | Path, name: str = "flights", namespace: str = "ml-flights"
    ) -> list[Manifest]:
        read = [value if isinstance(value, dict) else yaml.safe_load(value.read_text()) or {} for value in values]
        files = helm.render(CHARTS / chart, merge(*read), name=name, namespace=namespace)
        return [
            document
            for path, text in sorted(files.items())
            if not path.endswith("NOTES.txt")
            for document in yaml.load_all(text, Loader=yaml.CSafeLoader)
            if document
        ]

    return render_chart


@pytest.fixture(scope="session", params=_value_sets())
def rendered(request: pytest.FixtureRequest, render: Callable[..., list[Manifest]]) -> Rendered:
    """Return each chart with each of its value sets."""
    chart, values = request.param
    return Rendered(chart, values, render(chart, *values))


@pytest.fixture(scope="session", params=APPLICATIONS)
def chart(request: pytest.FixtureRequest) -> Path:
    """Return the folder of each chart that can be installed."""
    return CHARTS / str(request.param)


@pytest.fixture(scope="session")
def check() -> Callable[[list[Manifest]], None]:
    """Return check(objects): strict validation against Kubernetes 1.30, 1.33 and 1.37 and against CRDs."""
    schemas = _load("schemas")
    if not schemas.can_check_kubernetes():
        _missing("helm", "needs kubernetes-validate (pip install kubernetes-validate)")

    def check_objects(objects: list[Manifest]) -> None:
        if any(schemas.kind_of(manifest) in schemas.CRDS for manifest in objects):
            try:
                schemas.modules()
            except OSError as error:
                _missing("crds", f"definitions of custom resources come from Go modules: {error}")
        found = [e for release in schemas.KUBERNETES for manifest in objects for e in schemas.errors(manifest, release)]
        assert not found, "\n".join(dict.fromkeys(found))

    return check_objects


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        _missing("promtool", "needs promtool (Debian and Ubuntu: apt-get install prometheus)")
    return str(found)
