"""Pickles do not get into a Bento under any name."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import PackagingFailed
from components.package.contents import require_no_pickle


def tar_of(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "bento.tar"
    with tarfile.open(path, "w") as tar:
        for entry, data in (("src/model/model.onnx", b"\x08\x08onnx"), (name, content)):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("src/model.pkl", b"anything"),
        ("src/MODEL.PICKLE", b""),
        ("src/m.joblib", b"x"),
        ("src/model.onnx2", pickle.dumps({"a": 1}, protocol=2)),
        ("src/model", pickle.dumps(list(range(100_000)), protocol=5)),
        ("src/weights", zipped("archive/data.pkl", b"x")),
        ("src/weights.zip", zipped("data", pickle.dumps([1], protocol=4))),
    ],
)
def test_a_pickle_is_refused_by_name_and_by_content(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(PackagingFailed) as refused:
        require_no_pickle(tar_of(tmp_path, name, content))
    assert refused.value.measured == name


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x04 not a pickle", b"PK", zipped("a.json", b"{}")])
def test_other_files_pass(tmp_path: Path, content: bytes) -> None:
    require_no_pickle(tar_of(tmp_path, "src/file", content))


@given(
    value=st.recursive(st.none() | st.booleans() | st.text() | st.binary() | st.floats(), st.lists),
    protocol=st.integers(2, 5),
)
def test_every_pickle_is_found(tmp_path_factory: pytest.TempPathFactory, value: object, protocol: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    with pytest.raises(PackagingFailed):
        require_no_pickle(tar_of(folder, "src/file", pickle.dumps(value, protocol=protocol)))
