"""The training set: point-in-time correct rows and what a model must know to be served.

A folder with `training_set.parquet`, `training_set.json` and `registry.pb` (the Feast registry of the service).
"""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.sections import InputKind
from components.core.storage import write_text

ROWS = "training_set.parquet"
MANIFEST = "training_set.json"
REGISTRY = "registry.pb"


class Input(BaseModel):
    """One model input, in model order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: InputKind
    view: str = ""
    """Feature view it is read from; empty: the request brings it."""
    ttl_seconds: int = 0
    """Age after which a value is stale; 0: never."""


class TrainingSet(BaseModel):
    """Description of the rows; the Parquet file has id, entities, instants, label and all inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    as_of: datetime
    snapshot: str
    """Digest of the snapshot that the rows were joined from."""
    service: str
    registry: str
    """Digest of the feature definitions."""
    digest: str
    """SHA-256 of the Parquet file."""
    rows: int
    id: list[str]
    entities: dict[str, str]
    """Join key to its Arrow type."""
    label: str
    inputs: list[Input]
    stale: Literal["null", "reject"] = "null"
    """What serving does with a value older than its view's TTL (`features.stale`)."""
    missing: Literal["null", "reject"] = "null"
    """What serving does when an entity has no value (`features.missing`)."""


def write_manifest(folder: Path, training_set: TrainingSet) -> None:
    """Write the description beside the rows."""
    write_text(folder / MANIFEST, training_set.model_dump_json(indent=2))


def read_manifest(folder: Path) -> TrainingSet:
    """Read the description of a training set."""
    return TrainingSet.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
