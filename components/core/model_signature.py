"""Who made an archive: detached signatures of the OpenSSF Model Signing format, checked with a public key.

A signature lies beside its archive. It is a Sigstore bundle (version 0.3) around a DSSE envelope around an in-toto
statement that names the SHA-256 of the whole tar: model, service code and requirements. The format and its rules are
those of the package `model-signing` 1.1, which signs (components/package) and with which anybody can check:
`model_signing verify key ARCHIVE --signature ARCHIVE.sig --public_key KEY`. A server checks without it, since it brings
a client of Sigstore's public services. Signatures of its 0.2 are refused.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from components.core.errors import ConfigError, Untrusted
from components.core.object_store import fetch
from components.core.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PublicKey: TypeAlias = "EllipticCurvePublicKey"

log = logging.getLogger(__name__)

SUFFIX = ".sig"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""With SHA-256, SHA-384 and SHA-512."""


def signature_path(archive: Path) -> Path:
    """Return where the signature of an archive lies: beside it."""
    return archive.with_name(archive.name + SUFFIX)


def require_signature(settings: Settings, archive: Path, digest: str, *, shared: bool = True) -> str:
    """Return the id of the key that signed an archive of this SHA-256; empty where settings ask for no signature.

    The signature of a `shared` archive comes from the object store. Raises Untrusted when it is missing or does not
    hold, ConfigError when the key is none, StorageFailed.
    """
    if settings.model_verifying_key is None:
        log.warning("unsigned: DRIFTLINE_MODEL_VERIFYING_KEY is not set, so whoever made %s is believed", archive.name)
        return ""
    key = load_public_key(settings.model_verifying_key)
    signature = signature_path(archive)
    if not (fetch(settings, signature, again=True) if shared else signature.is_file()):
        _refuse("the archive has no signature", f"no {signature.name} beside it", f"one by key {key_id(key)[:12]}")
    check_signature(signature.read_bytes(), digest, key)
    log.info("%s is signed by key %s", archive.name, key_id(key)[:12])
    return key_id(key)


def check_signature(signature: bytes, digest: str, key: PublicKey) -> None:
    """Raise Untrusted unless a signature is by this key and names the archive of this SHA-256."""
    try:
        payload, value, hint = _opened(signature)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        _refuse("the archive's signature cannot be read", f"{type(error).__name__}: {error}", "a Sigstore bundle")
    if hint and hint != key_id(key):
        _refuse("the archive was signed with another key", f"key {str(hint)[:12]}", f"key {key_id(key)[:12]}")
    if not _holds(key, payload, value):
        _refuse("the archive's signature does not hold", "not of this content", f"by key {key_id(key)[:12]}")
    try:
        named = _named_digest(json.loads(payload))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        _refuse("the signature does not sign an archive", f"{type(error).__name__}: {error}", PREDICATE)
    if named != digest:
        _refuse("the signature is that of another archive", named[:12], digest[:12])


def load_public_key(path: Path) -> PublicKey:
    """Read a key that verifies models. Raises ConfigError when the file holds none."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return _elliptic(path, load_pem_public_key, "public", "DRIFTLINE_MODEL_VERIFYING_KEY")


def public_key_of(path: Path) -> PublicKey:
    """Return the public half of the private key in a file. Raises ConfigError when the file holds none."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def load(content: bytes) -> Any:
        key = load_pem_private_key(content, None)
        return key.public_key()

    return _elliptic(path, load, "private", "DRIFTLINE_MODEL_SIGNING_KEY")


def key_id(key: PublicKey) -> str:
    """Return the SHA-256 of a public key as PEM, in hexadecimal digits: how `model-signing` names it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _elliptic(path: Path, load: Callable[[bytes], Any], kind: str, variable: str) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = load(path.read_bytes())
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        found = f"{type(error).__name__}: {error}"
    else:
        found = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        if found in CURVES:
            return key  # type: ignore[no-any-return]
    raise ConfigError(
        f"{path} is no {kind} key for models",
        measured=found,
        allowed=f"PEM without a password, of {', '.join(CURVES)}",
        next_step=f"set {variable} to the file of the {kind} key",
    )


def _opened(signature: bytes) -> tuple[bytes, bytes, Any]:
    """Return payload, signature and hint of a bundle. Raises ValueError, KeyError or TypeError when it is none."""
    bundle = json.loads(signature)
    envelope = bundle["dsseEnvelope"]
    (signed,) = envelope["signatures"]
    if bundle["mediaType"] != BUNDLE or envelope["payloadType"] != PAYLOAD:
        raise ValueError(f"{bundle['mediaType']} of {envelope['payloadType']}")
    payload = base64.b64decode(envelope["payload"], validate=True)
    hint = bundle["verificationMaterial"]["publicKey"].get("hint")
    return payload, base64.b64decode(signed["sig"], validate=True), hint


def _holds(key: PublicKey, payload: bytes, value: bytes) -> bool:
    """Tell whether a DSSE signature (v1.0, pre-authentication encoding) is by a key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
    algorithm = dict(zip(CURVES, (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()), strict=True))[key.curve.name]
    try:
        key.verify(value, signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _named_digest(statement: dict[str, Any]) -> str:
    """Return the SHA-256 of the one file that a statement names, without which it is none of ours."""
    if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
        raise ValueError(f"{statement['_type']} of {statement['predicateType']}")
    (subject,) = statement["subject"]
    (resource,) = statement["predicate"]["resources"]
    if statement["predicate"]["serialization"]["method"] != "files" or resource["algorithm"] != "sha256":
        raise ValueError("a file hashed with SHA-256 is expected")
    # "." is a model that is one file, not a folder.
    if resource["name"] != ".":
        raise ValueError("an archive is expected, not a folder")
    digest: str = resource["digest"]
    if hashlib.sha256(bytes.fromhex(digest)).hexdigest() != subject["digest"]["sha256"]:
        raise ValueError("its digests contradict each other")
    return digest


def _refuse(what: str, measured: str, allowed: str) -> NoReturn:
    raise Untrusted(
        what,
        measured=measured,
        allowed=allowed,
        next_step="do not serve it: find out who wrote it, or package the model again with the right key",
    )
