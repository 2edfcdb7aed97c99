"""A Bento carries every module and pins every package that it needs, and nothing of other verbs."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from components.core.errors import PackagingFailed
from components.package.bento import SERVICE
from components.package.closure import module_closure, pinned_requirements

ROOT = Path(__file__).parents[3]


def test_the_copied_modules_import_without_the_repository(tmp_path: Path) -> None:
    paths = module_closure(ROOT, SERVICE)
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    modules = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in paths]
    # The entry reads model files at import; its own imports are imported here.
    names = [name for name in modules if name != SERVICE]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
for name in {names!r}:
    assert importlib.import_module(name).__file__.startswith({str(tmp_path)!r}), name
heavy = [name for name in ("feast", "pandas", "mlflow", "xgboost", "kfp", "sqlalchemy") if name in sys.modules]
assert heavy == [], heavy
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_only_serve_and_core_are_copied() -> None:
    paths = [path.as_posix() for path in module_closure(ROOT, SERVICE)]
    assert "components/serve/service.py" in paths
    assert {path.split("/")[1] for path in paths} == {"__init__.py", "core", "serve"}
    assert not {"components/core/tracking.py", "components/core/ledger/engine.py"} & set(paths)


def test_imports_inside_functions_count(tmp_path: Path) -> None:
    for name, text in {
        "components/__init__.py": "",
        "components/a/__init__.py": "",
        "components/a/one.py": "def f():\n    from components.b import two\n    import numpy\n",
        "components/b/__init__.py": "",
        "components/b/two.py": "import components.a.one\n",
        "components/b/unused.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [p.as_posix() for p in module_closure(tmp_path, "components.a.one")]
    assert found == [
        "components/__init__.py",
        "components/a/__init__.py",
        "components/a/one.py",
        "components/b/__init__.py",
        "components/b/two.py",
    ]


def test_requirements_are_pinned_with_all_they_need() -> None:
    lines = pinned_requirements(["bentoml", "onnxruntime"])
    pins = dict(line.split("==") for line in lines)
    assert list(pins) == sorted(pins)
    assert pins["bentoml"] == version("bentoml")
    # Of the closure, not of the list: the web server behind BentoML.
    assert pins["uvicorn"] == version("uvicorn")
    assert not {"feast", "xgboost-cpu", "torch", "mlflow"} & set(pins)


def test_extras_bring_their_packages() -> None:
    plain, extra = (dict(p.split("==") for p in pinned_requirements([n])) for n in ("feast", "feast[redis]"))
    assert "redis" in set(extra) - set(plain)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(PackagingFailed, match="no-such-package"):
        pinned_requirements(["no-such-package"])
