"""Reading the infrastructure tree. Each wrong file is an error that names it and the wrong key."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from components.core.errors import ConfigError
from components.core.usecase import explain
from pipelines.infra.model import Addon, ClusterSpec, KfpImages, Lock

Model = TypeVar("Model", bound=BaseModel)
LOCK = "lock.yaml"


def read_yaml(path: Path) -> Any:
    """Return a YAML document. Raises ConfigError."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML", measured=" ".join(str(error).split())) from error


def parse(path: Path, document: Any, model: type[Model]) -> Model:
    """Return a document as a model. Raises ConfigError that names the file and each wrong key."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path} is wrong: {explain(error, model)}") from error


def read_addons(root: Path) -> dict[str, Addon]:
    """Return the add-ons by name, which is their folder's. Raises ConfigError."""
    paths = sorted((root / "addons").glob("*/app.yaml"))
    return {path.parent.name: parse(path, read_yaml(path), Addon) for path in paths}


def read_kfp_images(root: Path) -> KfpImages:
    """Return the images of Kubeflow Pipelines. Raises ConfigError."""
    path = root / "kfp/images.yaml"
    return parse(path, read_yaml(path), KfpImages)


def read_clusters(root: Path) -> dict[str, ClusterSpec]:
    """Return the clusters by name. Raises ConfigError, also for a folder that is not its environment's."""
    clusters: dict[str, ClusterSpec] = {}
    for path in sorted((root / "clusters").glob("*/cluster.yaml")):
        document = read_yaml(path)
        spec = parse(path, document.get("spec") if isinstance(document, dict) else document, ClusterSpec)
        if spec.environment != path.parent.name:
            raise ConfigError(
                f"{path}: spec.environment must equal its folder", measured=spec.environment, allowed=path.parent.name
            )
        clusters[spec.environment] = spec
    if not clusters:
        raise ConfigError(
            "this is no infrastructure tree",
            measured=f"no file matches {root}/clusters/*/cluster.yaml",
            next_step="let --dir name the folder infra of a checkout",
        )
    return clusters


def read_lock(root: Path) -> Lock:
    """Return the lock; an absent file locks nothing. Raises ConfigError for one that was edited into nonsense."""
    path = root / LOCK
    if not path.exists():
        return Lock()
    return parse(path, read_yaml(path) or {}, Lock)
