"""Checkpoint files: replaced as a whole, and checked before any library parses them.

XGBoost 3.2 aborts the process on a damaged model file, which no retry would survive.
"""

import hashlib
import logging
from pathlib import Path

from components.core.storage import write_atomically

log = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


def write_checkpoint(path: Path, content: bytes) -> None:
    """Replace a checkpoint; a kill leaves the earlier one."""
    digest = hashlib.sha256(content).digest()
    write_atomically(path, lambda temporary: temporary.write_bytes(digest + content))


def read_checkpoint(path: Path | None) -> bytes | None:
    """Return a checkpoint's content, or None when there is none or it is damaged."""
    if path is None or not path.is_file():
        return None
    stored = path.read_bytes()
    content = stored[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST_BYTES]:
        log.warning("checkpoint %s is damaged; training starts from the beginning", path)
        return None
    return content
