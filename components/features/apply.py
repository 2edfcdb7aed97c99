"""Apply the feature definitions of a use case to the registry."""

from pathlib import Path
from types import ModuleType
from typing import Any

from components.core.errors import ConfigError, FeatureError
from components.core.settings import Settings
from components.core.usecase import load_use_case
from components.features.definitions import registry_digest
from components.features.locks import exclusive
from components.features.store import open_store


def apply_definitions(settings: Settings, use_case: str) -> str:
    """Apply `<feature_repo>/<use_case>/features.py` and return the digest of the use case's service.

    Applying the same definitions again changes nothing; materialization intervals are kept. Views and services that the
    file no longer names stay, because a deployed model may still read them.
    Raises ConfigError when the file or its service is missing, FeatureError when the file cannot be run or is refused.
    """
    folder = settings.feature_repo / use_case
    service = load_use_case(folder).features.service
    objects = load_definitions(folder / "features.py", service)
    store = open_store(settings, use_case)
    # Feast reads, compares and writes without a lock of its own.
    with exclusive(settings.feature_registry_url, f"apply-{use_case}"):
        try:
            store.apply(objects)
        except Exception as error:
            raise FeatureError(
                f"Feast refused the definitions of {use_case}", measured=str(error), next_step="correct features.py"
            ) from error
        return registry_digest(store, service)


def load_definitions(path: Path, service: str) -> list[Any]:
    """Run a definitions file and return its feature service, the views of that service and their entities."""
    from feast import Entity, FeatureService, FeatureView

    module = _run(path)
    found = list(vars(module).values())
    services = {o.name: o for o in found if isinstance(o, FeatureService)}
    if service not in services:
        raise ConfigError(
            f"{path} does not define the feature service that use_case.yaml names",
            measured=", ".join(sorted(services)) or "no FeatureService",
            allowed=service,
            next_step="correct features.service in use_case.yaml or add the service",
        )
    kinds = (Entity, FeatureView, FeatureService)
    return [o for o in found if isinstance(o, kinds)]


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{path} is missing", next_step="define a FeatureService there")
    module = ModuleType(f"driftline_features_{path.parent.name}")
    module.__file__ = str(path)
    try:
        # Not imported: Python would take the bytecode of an edit within the same second that kept the file's size.
        exec(compile(path.read_bytes(), path, "exec"), vars(module))  # noqa: S102
    except Exception as error:
        raise FeatureError(
            f"{path} cannot be run", measured=f"{type(error).__name__}: {error}", next_step="correct the definitions"
        ) from error
    return module
