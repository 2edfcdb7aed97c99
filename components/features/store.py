"""Open the feature store of a use case: `feature_store.yaml` with the addresses of this environment laid over it."""

from pathlib import Path
from typing import Any

import yaml
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from components.core.errors import ConfigError, FeatureError
from components.core.online_store import ENTITY_KEY_VERSION, online_store_config
from components.core.settings import Settings
from components.features.locks import exclusive

LOCK_WAIT_SECONDS = 60


def open_store(settings: Settings, use_case: str, *, manifest: Path | None = None) -> Any:
    """Return a Feast FeatureStore whose project is the use case.

    `manifest` pins the snapshot that historical reads use; without it only definitions and online reads work.
    Raises ConfigError for an unusable address, FeatureError when the registry is out of reach.
    """
    from feast import FeatureStore, RepoConfig

    config = _defaults(settings.feature_repo / "feature_store.yaml")
    online = online_store_config(settings.online_store_url)
    if online["type"] == "sqlite":
        Path(online["path"]).parent.mkdir(parents=True, exist_ok=True)
    # Creating tables is check-then-act in Feast: two first openers would collide.
    with exclusive(settings.feature_registry_url, "schema"):
        config["project"] = use_case
        config["registry"] |= registry_config(settings.feature_registry_url)
        config["entity_key_serialization_version"] = ENTITY_KEY_VERSION
        config["online_store"] = online
        config["offline_store"] |= {"manifest": str(manifest or ""), "snapshots": str(settings.snapshots)}
        store = FeatureStore(config=RepoConfig(**config))
        try:
            store.registry  # noqa: B018  opens the database
        except SQLAlchemyError as error:
            raise FeatureError(
                "the feature registry cannot be opened",
                measured=str(error),
                next_step="check DRIFTLINE_FEATURE_REGISTRY_URL",
            ) from error
    return store


def registry_config(url: str) -> dict[str, Any]:
    """Return the registry section for an SQLAlchemy URL."""
    options: dict[str, Any] = {"echo": False, "pool_pre_ping": True}
    if make_url(url).get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": LOCK_WAIT_SECONDS}
    return {"path": url, "sqlalchemy_config_kwargs": options}


def _defaults(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing", next_step="run in the repository root or set DRIFTLINE_FEATURE_REPO"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML", measured=str(error)) from error
    sections = ("registry", "offline_store")
    if not isinstance(config, dict) or any(not isinstance(config.get(section), dict) for section in sections):
        raise ConfigError(f"{path} must be a mapping with the sections {', '.join(sections)}")
    return config
