"""Finding declared source files: in an installed package, at a path, or at an fsspec URI."""

import shutil
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from components.core.errors import ConfigError, DataError
from components.core.sections import Source


def locate(source: Source, *, folder: Path, scratch: Path) -> Path:
    """Return a local, uncompressed file for a source; `folder` is what relative paths start from.

    Packages are looked up by their metadata and never imported. Raises DataError when the file is missing or a
    broken archive, ConfigError when the package is not installed.
    """
    if source.package:
        path = _in_package(source)
    elif "://" in source.path:
        path = _download(source.path, scratch)
    else:
        path = folder / source.path
    if not path.is_file():
        raise DataError("source file is missing", measured=str(path), next_step="check data.sources in use_case.yaml")
    return _unzip(path, scratch) if path.suffix == ".zip" else path


def _in_package(source: Source) -> Path:
    try:
        return Path(str(distribution(source.package).locate_file(source.path)))
    except PackageNotFoundError:
        raise ConfigError(
            "the package that holds a source is not installed",
            measured=source.package,
            next_step=f"pip install {source.package}",
        ) from None


def _download(uri: str, scratch: Path) -> Path:
    import fsspec

    target = scratch / uri.rsplit("/", 1)[-1]
    try:
        with fsspec.open(uri, "rb") as remote, target.open("wb") as local:
            shutil.copyfileobj(remote, local)
    except (OSError, ValueError, ImportError) as error:
        raise DataError("source cannot be read", measured=f"{uri}: {error}") from error
    return target


def _unzip(path: Path, scratch: Path) -> Path:
    """Extract the one member of an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise DataError(
                    "a zipped source must hold one file", measured=f"{path}: {len(members)} files", allowed=1
                )
            target = scratch / Path(members[0]).name
            with archive.open(members[0]) as packed, target.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
    except zipfile.BadZipFile as error:
        raise DataError("source archive is corrupt", measured=f"{path}: {error}") from error
    return target
