"""Signing what was packaged: whoever serves or promotes it can tell that it comes from here."""

import logging
from pathlib import Path

from components.core.digests import file_digest
from components.core.errors import Untrusted
from components.core.model_signature import PublicKey, check_signature, key_id, public_key_of, signature_path
from components.core.object_store import fetch, publish
from components.core.settings import Settings
from components.core.storage import write_atomically

log = logging.getLogger(__name__)


def sign_archive(settings: Settings, archive: Path) -> str:
    """Sign a kept archive with the key of `settings`, publish the signature beside it and return the key's id.

    Without a key nothing is signed and the answer is empty. A signature by this key that is there already is kept, so
    a retry changes nothing; one by an earlier key is replaced. Raises ConfigError when the key cannot be used,
    Untrusted when what it signed does not hold, StorageFailed.
    """
    if settings.model_signing_key is None:
        log.warning("unsigned: DRIFTLINE_MODEL_SIGNING_KEY is not set; servers that ask for a signature refuse this")
        return ""
    key = public_key_of(settings.model_signing_key)
    digest, signature = file_digest(archive), signature_path(archive)
    published = fetch(settings, signature, again=True)
    if not (signature.is_file() and _holds(signature, digest, key)):
        _sign(archive, signature, settings.model_signing_key)
        published = False
        check_signature(signature.read_bytes(), digest, key)
    if not published:
        publish(settings, signature)
    log.info("%s is signed by key %s", archive.name, key_id(key)[:12])
    return key_id(key)


def _holds(signature: Path, digest: str, key: PublicKey) -> bool:
    try:
        check_signature(signature.read_bytes(), digest, key)
    except Untrusted as error:
        log.info("signing again: %s", error)
        return False
    return True


def _sign(archive: Path, signature: Path, signing_key: Path) -> None:
    from model_signing.signing import Config

    signer = Config().use_elliptic_key_signer(private_key=signing_key)
    write_atomically(signature, lambda temporary: signer.sign(archive, temporary))
