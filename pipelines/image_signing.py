"""Signing pushed images with cosign: a cluster can then ask for images that come from here.

The signature and the bill of materials, as an attestation, lie beside the image in its registry. With a key of one's
own nothing is sent to Sigstore's public services.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from components.core.errors import ConfigError, ImageFailed

log = logging.getLogger(__name__)

# A transparency log is public: whoever wants one signs with cosign directly.
OFFLINE = ("--tlog-upload=false", "--use-signing-config=false")


def require_cosign(key: Path) -> None:
    """Raise ConfigError unless images can be signed, or verified, with this key: cosign and the file are there.

    Asked before anything is built.
    """
    if shutil.which("cosign") is None:
        raise ConfigError(
            "images are signed with cosign, which is not installed",
            allowed="cosign 3",
            next_step="install it, or sign and verify where it is",
        )
    if not key.is_file():
        raise ConfigError(f"there is no key {key}", next_step="make one: cosign generate-key-pair")


def sign_image(digest: str, key: Path, bill: Path) -> None:
    """Sign `repository@sha256:...` and attest its bill of materials, a CycloneDX file.

    The key's password is read by cosign itself, from COSIGN_PASSWORD or the terminal. Repeating it adds an equal
    signature. Raises ImageFailed.
    """
    _cosign("sign", "--yes", *OFFLINE, "--key", str(key), digest)
    attest = ("--type", "cyclonedx", "--predicate", str(bill))
    _cosign("attest", "--yes", *OFFLINE, "--key", str(key), *attest, digest)


def signature_fault(image: str, key: Path) -> str:
    """Return why `repository@sha256:...` has no good signature by the key whose public half this file is; '' if it has.

    Nothing is looked for in Sigstore's public log, where we send nothing.
    """
    command = ["cosign", "verify", "--insecure-ignore-tlog=true", "--key", str(key), image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (said[-1].strip() if said else f"exit code {done.returncode}")


def _cosign(*arguments: str) -> None:
    log.info("cosign %s", " ".join(arguments))
    # It may ask for the key's password, and what it says is for people.
    done = subprocess.run(["cosign", *arguments], stdout=sys.stderr, check=False)  # noqa: S603, S607
    if done.returncode:
        raise ImageFailed(
            f"cosign could not {arguments[0]} {arguments[-1]}",
            measured=f"exit code {done.returncode}",
            next_step="read its message above: the key, its password in COSIGN_PASSWORD, or the registry",
        )
