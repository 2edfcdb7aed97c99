"""Making a new use case from the template: a folder that runs as it is."""

import re
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from string import Template

from components.core.errors import ConfigError, StorageFailed

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")


def create_use_case(repo: Path, name: str, owner: str) -> Path:
    """Write a use case's folder below the feature repository and return it; the folder appears whole or not at all.

    Raises ConfigError for a bad name and for a folder that exists.
    """
    if not NAME.match(name):
        raise ConfigError("not a use case name", measured=name, allowed="lower case letters, digits and _")
    target = repo / name
    if target.exists():
        raise ConfigError("the folder exists", measured=str(target), next_step="choose another name")
    try:
        repo.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=repo, prefix=f".{name}-") as staging,
            as_file(files("pipelines") / "templates" / "use_case") as template,
        ):
            staged = Path(staging) / name
            shutil.copytree(template, staged)
            for path in staged.rglob("*.*"):
                text = Template(path.read_text(encoding="utf-8")).safe_substitute(name=name, owner=owner)
                path.write_text(text, encoding="utf-8")
            staged.rename(target)
    except OSError as error:
        raise StorageFailed(f"cannot write {target}", measured=error.strerror or str(error)) from error
    return target
