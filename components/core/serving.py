"""What `package` writes into a Bento and `serve` reads: everything a model needs to answer, as data."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import DataError
from components.core.storage import write_text
from components.core.training_set import Input

SPEC = "serving.json"
MODEL_FOLDER = "model"
"""Folder of a Bento's sources with the graph, the encoding, the card, the registry and this description."""


class ServingSpec(BaseModel):
    """Description of one served model version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    version: int
    """Version in the model registry."""
    model: str
    """Digest of the graph and the encoding; independent of the Bento."""
    entities: dict[str, str]
    """Join key to its Arrow type: string, int32 or int64."""
    inputs: list[Input]
    """All model inputs in model order; those without a view come with the request."""
    stale: Literal["null", "reject"]
    missing: Literal["null", "reject"]
    buckets: list[float]
    """Upper bounds of the prediction histogram."""
    workers: int
    timeout_seconds: int
    max_batch_rows: int
    max_request_bytes: int

    @property
    def views(self) -> dict[str, list[Input]]:
        """Feature view to the inputs that are read from it, in model order."""
        views: dict[str, list[Input]] = {}
        for column in self.inputs:
            if column.view:
                views.setdefault(column.view, []).append(column)
        return views

    @property
    def tag(self) -> str:
        """Name and version of the model's Bento, within BentoML's rules for tags."""
        return bento_tag(self.use_case, self.version, self.model)


def bento_tag(use_case: str, version: int, model: str) -> str:
    """Return name and version of the Bento of a model version; `model` is its digest."""
    return f"{use_case.rstrip('_')}:{version}-{model[:12]}"


def write_spec(folder: Path, spec: ServingSpec) -> None:
    write_text(folder / SPEC, spec.model_dump_json(indent=2))


def read_spec(folder: Path) -> ServingSpec:
    return ServingSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))


def read_archived_spec(archive: Path) -> ServingSpec:
    """Return the description inside a Bento's tar. Raises DataError when the file is no such Bento."""
    for name, content in _model_files(archive):
        if name == SPEC:
            return ServingSpec.model_validate_json(content)
    raise _no_bento(archive)


def read_unpacked_spec(folder: Path) -> ServingSpec:
    """Return the description inside an unpacked Bento. Raises DataError when the folder is no such Bento."""
    model = folder / "src" / MODEL_FOLDER
    if not (model / SPEC).is_file():
        raise _no_bento(folder)
    return read_spec(model)


def extract_model(archive: Path, folder: Path) -> ServingSpec:
    """Write the model files of a Bento's tar into a folder and return their description.

    Raises DataError when the file is no such Bento.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _model_files(archive):
        (folder / name).write_bytes(content)
    if not (folder / SPEC).is_file():
        raise _no_bento(archive)
    return read_spec(folder)


def _model_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in a Bento's model folder."""
    root = f"src/{MODEL_FOLDER}/"
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                folder, found, name = member.name.removeprefix("./").partition(root)
                if found and not folder and name and "/" not in name and (file := tar.extractfile(member)):
                    yield name, file.read()
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read as a Bento", measured=str(error), allowed="a tar") from error


def _no_bento(archive: Path) -> DataError:
    return DataError(
        f"{archive} is not a Bento of this platform", allowed=f"a tar or a folder with src/{MODEL_FOLDER}/{SPEC}"
    )
