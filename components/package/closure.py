"""What a Bento must carry: the modules that the service imports and the packages that those need."""

import ast
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from components.core.errors import PackagingFailed

PACKAGE = "components"
UNUSED = ("mypy",)
"""Feast asks for SQLAlchemy's plug-in for this type checker, which nobody runs in a server; images go without it."""


def module_closure(root: Path, entry: str) -> list[Path]:
    """Return the files below `root` that a module of `components` needs, relative, sorted.

    Imports inside functions count too: they would fail at the first request instead of at the start.
    """
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        if name in found or path is None:
            continue
        found.add(name)
        waiting += [name.rpartition(".")[0], *_imports(root / path)]
    return sorted(path for name in found if (path := _file(root, name)) is not None)


def _file(root: Path, module: str) -> Path | None:
    if not module:
        return None
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (root / candidate).is_file():
            return candidate
    return None


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` names a module, `from module import thing` does not: try both.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def pinned_requirements(names: Iterable[str]) -> list[str]:
    """Return `name==version` of installed packages and of everything they require here but `UNUSED`, sorted.

    `names` may carry extras. Raises PackagingFailed when a package is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        fresh = [(name, extra) for extra in ("", *sorted(requirement.extras)) if (name, extra) not in done]
        if not fresh or name in UNUSED:
            continue
        done.update(fresh)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise PackagingFailed(f"{name} is needed to serve but is not installed here") from None
        pins[name] = installed.version
        for line in installed.requires or []:
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for _, extra in fresh):
                waiting.append(needed)
    return [f"{name}=={version}" for name, version in sorted(pins.items())]
