"""The champion: the model that the challenger would replace."""

from pathlib import Path

from components.core.bundle import read_card
from components.core.errors import DataError
from components.core.settings import Settings


def fetch_champion(settings: Settings, use_case: str, folder: Path) -> tuple[Path | None, int]:
    """Download the champion's bundle into `folder`: its path and version, or (None, 0) when there is none.

    Where a key verifies models, the champion's archive says which model it is: ledger and registry alone could name one
    that nobody signed. Raises DataError when the registry holds another model under that version than was promoted, and
    what `extract_champion` does.
    """
    from components.core.champion import extract_champion
    from components.core.ledger.champions import read_champion
    from components.core.ledger.engine import open_ledger
    from components.core.tracking import download_bundle

    champion = read_champion(open_ledger(settings.ledger_url), use_case)
    if champion is None:
        return None, 0
    if settings.model_verifying_key is not None:
        champion, _ = extract_champion(settings, use_case, folder / "archive")
    bundle = download_bundle(settings, use_case, champion.version, folder / "champion")
    found = read_card(bundle).model
    if found != champion.digest:
        raise DataError(
            f"version {champion.version} of {use_case} in the model registry is not the model that was promoted",
            measured=found[:12],
            allowed=champion.digest[:12],
            next_step="restore the registry's artifacts, or revert to an earlier champion",
        )
    return bundle, champion.version
