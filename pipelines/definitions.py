"""The feature definitions' digest: applied once, then remembered as long as their files stay the same."""

from importlib.metadata import version

from components.core.digests import file_digest, json_digest
from components.core.settings import Settings
from components.core.storage import write_text


def applied_definitions(settings: Settings, use_case: str) -> str:
    """Return the digest of a use case's definitions in the registry; apply them if their files changed.

    Importing Feast costs 5 to 9 CPU-seconds, hence the memory. The step compares the digest with the registry
    itself, so a memory that is out of date is found out there.
    """
    marker = settings.home / "feast" / f"{use_case}.applied"
    files = [settings.feature_repo / use_case / "features.py", settings.feature_repo / "feature_store.yaml"]
    key = json_digest(
        [version("feast"), settings.feature_registry_url, *(file_digest(f) for f in files if f.is_file())]
    )
    if marker.is_file():
        known, _, digest = marker.read_text(encoding="utf-8").partition(" ")
        if known == key:
            return digest
    from components.features.apply import apply_definitions

    digest = apply_definitions(settings, use_case)
    write_text(marker, f"{key} {digest}")
    return digest
