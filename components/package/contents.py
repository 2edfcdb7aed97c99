"""What must not be in a Bento: pickles, since unpickling runs code."""

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from components.core.errors import PackagingFailed

SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".npy", ".npz", ".pt", ".pth", ".bin"}
_PROTO = 0x80
_STOP = b"."


def require_no_pickle(archive: Path) -> None:
    """Raise PackagingFailed when a tar holds a pickle, by name or by content, also inside a zip."""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None and _is_pickle(member.name, content):
                raise PackagingFailed(
                    "the Bento holds a pickle",
                    measured=member.name,
                    allowed="onnx, json and protobuf",
                    next_step="save the model as ONNX and leave the pickle out",
                )


def _is_pickle(name: str, content: IO[bytes]) -> bool:
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return True
    head = content.read(4)
    if head == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(head + content.read())) as inner:
            return any(_is_pickle(entry, inner.open(entry)) for entry in inner.namelist())
    # Protocol 2 and later (pickletools): opcode PROTO with the version, and STOP at the end.
    if len(head) < 2 or head[0] != _PROTO or not 2 <= head[1] <= 5:  # noqa: PLR2004
        return False
    last = head
    while block := content.read(1 << 20):
        last = block
    return last.endswith(_STOP)
