"""Rules of the code base that no linter knows."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from components.core.usecase import list_use_cases

ROOT = Path(__file__).parents[3]
CODE = sorted(p for top in ("components", "pipelines") for p in (ROOT / top).rglob("*.py"))
WRAPPERS = sorted((ROOT / "components").glob("*/*component.py"))
LOGIC = [p for p in CODE if p.is_relative_to(ROOT / "components") and p not in WRAPPERS]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", CODE, ids=name)
def test_no_code_names_a_use_case(path: Path) -> None:
    """Adding a use case is one folder; the default of `demo` is the one exception, in one place."""
    if name(path) == "pipelines/commands/demo.py":
        return
    words = set(re.findall(r"[a-z_]+", path.read_text()))
    assert not words & set(list_use_cases(ROOT / "feature_repo"))


@pytest.mark.parametrize("path", CODE, ids=name)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", WRAPPERS, ids=name)
def test_wrappers_are_thin(path: Path) -> None:
    """KFP ships only the function's source, under _KFP_RUNTIME: see docs/adr/0001."""
    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    others = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ImportFrom | ast.Expr)]
    assert len(functions) == 1
    assert not others, "no module constants: only the function travels"
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported <= {"kfp.dsl", "components.core.images"}
    decorator = functions[0].decorator_list[0]
    assert isinstance(decorator, ast.Call)
    assert {k.arg for k in decorator.keywords} == {"base_image", "install_kfp_package"}
    body = [node for node in functions[0].body if not isinstance(node, ast.ImportFrom)][1:]
    assert len(body) <= 6
    branches = [n for n in ast.walk(functions[0]) if isinstance(n, ast.If | ast.While | ast.Try | ast.Raise)]
    assert not branches


def test_verbs_do_not_re_export() -> None:
    for path in (ROOT / "components").rglob("__init__.py"):
        assert not path.read_text().strip(), f"{name(path)} must be empty"


def test_logic_imports_inside_a_task() -> None:
    """A task runs with _KFP_RUNTIME, which hides half of kfp: no logic module may need it."""
    modules = [name(p).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for p in LOGIC]
    # Some modules exist to be executed as a file of their own, in another process.
    program = "import importlib, sys\nfor m in sys.argv[1:]: importlib.import_module(m)"
    importable = [
        m for m in modules if not m.endswith((".env", ".entry", ".torch_tabular", ".network", ".network_graph"))
    ]
    importable = [m for m in importable if ".versions." not in m]
    environment = {**os.environ, "_KFP_RUNTIME": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program, *importable],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_logic_is_cheap() -> None:
    """Heavy libraries are imported inside functions: a step pays only for what it uses."""
    modules = [name(p).removesuffix(".py").replace("/", ".") for p in LOGIC if p.parent.name in ("core", "evaluate")]
    program = (
        "import importlib, sys\nfor m in sys.argv[1:]: importlib.import_module(m)\n"
        "print(*sorted({'feast', 'mlflow', 'xgboost', 'torch', 'great_expectations', 'sklearn', 'bentoml', 'kfp'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == []


def test_only_settings_reads_the_environment() -> None:
    """Handing the whole environment on to a child process is not reading it."""
    reading = re.compile(r"os\.environ(\.get|\[)|getenv|environ\.items")
    for path in CODE:
        if name(path) != "components/core/settings.py":
            assert not reading.search(path.read_text()), name(path)


def test_every_library_that_code_imports_is_declared() -> None:
    """What comes along with another package by chance can leave with its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    declared = {re.split(r"[\[=<>; ]", r)[0].lower().replace("_", "-") for r in requirements}
    distributions = packages_distributions()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in ("components", "pipelines"):
                    continue
                owners = {d.lower().replace("_", "-") for d in distributions.get(top, [top])}  # an extra may be absent
                assert owners & declared, f"{name(path)} imports {module}: declare one of {sorted(owners)}"
