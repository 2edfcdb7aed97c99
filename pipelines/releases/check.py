"""Checking release files without any server: in continuous integration, and before a merge."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError
from components.core.release import ENVIRONMENTS, FILE, parse_release, release_path


class Checked(BaseModel):
    """One file, and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    path: Path
    version: int | None
    error: str
    """Empty: nothing."""


def check_releases(paths: list[Path]) -> list[Checked]:
    """Check each file, and each `release.yaml` below each folder. Raises ConfigError when there is none at all."""
    files = [file for path in paths for file in (sorted(path.rglob(FILE)) if path.is_dir() else [path])]
    if not files:
        raise ConfigError(f"there is no {FILE} to check", measured=", ".join(map(str, paths)))
    return [_check(file) for file in files]


def _check(path: Path) -> Checked:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Checked(path=path, version=None, error=str(error))
    try:
        release = parse_release(text, str(path))
    except ConfigError as error:
        return Checked(path=path, version=None, error=str(error))
    return Checked(path=path, version=release.model_version, error=_misplaced(path, release.use_case))


def _misplaced(path: Path, use_case: str) -> str:
    """Say what is wrong with where a file lies; one outside of a tree may lie anywhere."""
    parts = path.absolute().parts
    if parts[-3:-2] != ("envs",):
        return ""
    environment = parts[-2]
    if environment not in ENVIRONMENTS:
        return f"{path}: {environment} is no environment; allowed: {', '.join(ENVIRONMENTS)}"
    expected = release_path(use_case, environment)
    # Environments of one use case must not serve the model of another.
    return "" if parts[-5:] == expected.parts[-5:] else f"{path}: release.useCase: {use_case!r}; allowed: {parts[-4]!r}"
