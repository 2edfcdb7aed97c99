"""The feature definitions' digest: applied once, then remembered as long as their files stay the same."""

from importlib.metadata import version
from pathlib import Path

from components.core.digests import file_digest, json_digest
from components.core.settings import Settings
from components.core.storage import write_text


def applied_definitions(settings: Settings, use_case: str) -> str:
    """Return the digest of a use case's definitions in the registry; apply them if their files changed.

    Importing Feast costs 5 to 9 CPU-seconds, hence the memory. The step compares the digest with the registry
    itself, so a memory that is out of date is found out there; `apply_and_remember` mends it.
    """
    marker = _marker(settings, use_case)
    if marker.is_file():
        known, _, digest = marker.read_text(encoding="utf-8").partition(" ")
        if known == _key(settings, use_case):
            return digest
    return apply_and_remember(settings, use_case)


def apply_and_remember(settings: Settings, use_case: str) -> str:
    """Apply a use case's definitions to the registry and return their digest."""
    from components.features.apply import apply_definitions

    digest = apply_definitions(settings, use_case)
    write_text(_marker(settings, use_case), f"{_key(settings, use_case)} {digest}")
    return digest


def _marker(settings: Settings, use_case: str) -> Path:
    return settings.home / "feast" / f"{use_case}.applied"


def _key(settings: Settings, use_case: str) -> str:
    """Return what the digest depends on: the files, the libraries that read them, the registry they are in."""
    files = [settings.feature_repo / use_case / "features.py", settings.feature_repo / "feature_store.yaml"]
    digests = [file_digest(f) for f in files if f.is_file()]
    return json_digest([version("feast"), version("driftline"), settings.feature_registry_url, *digests])
