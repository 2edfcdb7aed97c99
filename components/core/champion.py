"""The champion of a use case and its Bento: whoever loads a promoted model has it from here, checked."""

from pathlib import Path

from components.core.bundle import read_card
from components.core.digests import file_digest
from components.core.errors import DataError, PackagingFailed
from components.core.ledger.champions import Champion, read_champion
from components.core.ledger.engine import open_ledger
from components.core.model_signature import require_signature
from components.core.object_store import fetch, local_path
from components.core.serving import ServingSpec, extract_model
from components.core.settings import Settings


def require_champion(settings: Settings, use_case: str) -> Champion:
    """Return the champion of a use case; its Bento lies at `local_path(settings, champion.bento_uri)` then.

    Raises PackagingFailed when there is none, or when its Bento is gone or was changed; where a key verifies models,
    Untrusted when the archive's signature does not hold and ConfigError when the key is none.
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
    # Who set no key is told so where a model is promoted or served, not by every reader.
    if settings.model_verifying_key is not None:
        require_signature(settings, archive, champion.bento_digest)
    return champion


def extract_champion(settings: Settings, use_case: str, folder: Path) -> tuple[Champion, ServingSpec]:
    """Write the champion's model files into a folder, and return it with the description of what it serves.

    Raises what `require_champion` does, and DataError when the archive holds another model than the ledger says.
    """
    champion = require_champion(settings, use_case)
    spec = extract_model(local_path(settings, champion.bento_uri), folder)
    found = read_card(folder).model
    if found != champion.digest:
        raise DataError(
            f"the Bento of {use_case} holds another model than was promoted",
            measured=found[:12],
            allowed=champion.digest[:12],
            next_step="train again",
        )
    return champion, spec
