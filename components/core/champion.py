"""The champion of a use case and its Bento."""

from components.core.digests import file_digest
from components.core.errors import PackagingFailed
from components.core.ledger.champions import Champion, read_champion
from components.core.ledger.engine import open_ledger
from components.core.object_store import fetch, local_path
from components.core.settings import Settings


def require_champion(settings: Settings, use_case: str) -> Champion:
    """Return the champion of a use case; its Bento lies at `local_path(settings, champion.bento_uri)` then.

    Raises PackagingFailed when there is none, or when its Bento is gone or was changed.
    """
    champion = read_champion(open_ledger(settings.ledger_url), use_case)
    if champion is None:
        raise PackagingFailed(
            f"{use_case} has no champion yet", next_step=f"driftline run training --use-case {use_case}"
        )
    archive = local_path(settings, champion.bento_uri)
    if not fetch(settings, archive):
        raise PackagingFailed(
            f"the Bento of {use_case} version {champion.version} is gone",
            measured=champion.bento_uri,
            next_step="restore the file, or train again",
        )
    found = file_digest(archive)
    if found != champion.bento_digest:
        raise PackagingFailed(
            f"the Bento of {use_case} version {champion.version} is not the one that was probed",
            measured=found[:12],
            allowed=champion.bento_digest[:12],
            next_step="restore the file, or train again",
        )
    return champion
