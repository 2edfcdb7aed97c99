"""Which Bento a container serves: fetched, compared with what was promoted, its signature checked, then unpacked.

Nothing of an archive is opened before its digest and signature are known to be right, and nothing that an earlier
start left behind is reused unseen: a restarted container finds its `/tmp` as it was.
"""

import hashlib
import logging
import shutil
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import IO

from components.core.digests import file_digest
from components.core.errors import ConfigError, DataError
from components.core.model_signature import require_signature
from components.core.object_store import fetch, local_path
from components.core.settings import Settings
from components.core.storage import cannot_write

log = logging.getLogger(__name__)

DIGEST_LENGTH = 64
UNPACKED = "served"
"""Folder of `home` that holds the one Bento of this start."""


def verified_bento(settings: Settings) -> Path:
    """Return the folder of an unpacked Bento that is the one asked for, or what `settings.bento` names unchecked.

    It is unchecked only where it is a path and neither digest nor key is given. Raises ConfigError for an order that
    cannot be checked or a file that is not there, DataError when the content is not the one asked for, Untrusted when
    the signature does not hold, StorageFailed when the store does not answer.
    """
    archive = _archive(settings)
    if not settings.bento_digest and not settings.model_verifying_key:
        log.warning("unsigned: nothing says what %s must be or who may have made it", archive)
        return archive
    started = time.monotonic()
    shared = _make_local(settings, archive)
    with archive.open("rb") as file:
        # The file that was measured is the one that is unpacked, whatever its name points to by then.
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        _require_digest(settings, digest)
        require_signature(settings, archive, digest, shared=shared)
        file.seek(0)
        checked = time.monotonic()
        folder = _unpack(settings, file)
    log.info(
        "Bento %s: fetched and checked in %.2f s, unpacked in %.2f s",
        digest[:12], checked - started, time.monotonic() - checked,
    )  # fmt: skip
    return folder


def _archive(settings: Settings) -> Path:
    """Return where the Bento lies or will lie here. Raises ConfigError when the order cannot be checked."""
    archive = local_path(settings, settings.bento)
    digest = settings.bento_digest
    if digest and (len(digest) != DIGEST_LENGTH or not set(digest) <= set("0123456789abcdef")):
        raise ConfigError("DRIFTLINE_BENTO_DIGEST is no SHA-256", measured=digest, allowed="64 hexadecimal digits")
    if "://" in settings.bento and (archive == Path(settings.bento) or ".." in archive.parts):
        raise ConfigError(
            "the Bento does not lie in the object store",
            measured=settings.bento,
            allowed=f"an address below {settings.object_store_url or 'DRIFTLINE_OBJECT_STORE_URL, which is not set'}",
            next_step="set DRIFTLINE_OBJECT_STORE_URL to the store that the ledger names",
        )
    if "://" in settings.bento and not digest:
        raise ConfigError(
            "a Bento from the object store is served only by its digest",
            measured="no DRIFTLINE_BENTO_DIGEST",
            allowed="the SHA-256 of the tar, as release.yaml has it",
            next_step="set DRIFTLINE_BENTO_DIGEST",
        )
    if archive.is_dir() and (digest or settings.model_verifying_key):
        raise ConfigError(
            "an unpacked Bento cannot be checked",
            measured=archive,
            allowed="the tar",
            next_step="name the tar, or unset DRIFTLINE_BENTO_DIGEST and DRIFTLINE_MODEL_VERIFYING_KEY",
        )
    return archive


def _make_local(settings: Settings, archive: Path) -> bool:
    """Fetch an archive unless the right one is here; return whether it comes from the store. Raises ConfigError."""
    shared = "://" in settings.bento
    if shared and not (archive.is_file() and file_digest(archive) == settings.bento_digest):
        fetch(settings, archive, again=True)
    if not archive.is_file():
        raise ConfigError(
            "there is no such Bento", measured=settings.bento, next_step="compare it with `driftline decisions`"
        )
    return shared


def _require_digest(settings: Settings, digest: str) -> None:
    if settings.bento_digest and digest != settings.bento_digest:
        raise DataError(
            "the Bento is not the one that was promoted",
            measured=digest,
            allowed=settings.bento_digest,
            next_step="do not serve it: find out who wrote the file, or revert the release that names it",
        )


def _unpack(settings: Settings, file: IO[bytes]) -> Path:
    root = settings.home / UNPACKED
    shutil.rmtree(root, ignore_errors=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=root))
        with tarfile.open(fileobj=file) as tar:
            for member in tar:
                _write(tar, member, folder)
    except tarfile.TarError as error:
        raise DataError(f"{settings.bento} cannot be read as a Bento", measured=str(error), allowed="a tar") from error
    except OSError as error:
        raise cannot_write(root, error) from error
    return folder


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one file or folder of a tar; a link, a device or a way out of the folder is an error.

    The filter `data` of tarfile does the same, but not before Python 3.11.4.
    """
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name} is no file or folder below the archive's own")
    target = folder / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 - it is a file
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
