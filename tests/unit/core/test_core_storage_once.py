"""A file that is made once: one of many writers makes it, and nobody replaces it."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import StorageFailed
from components.core.storage import create_once

WRITERS, FILES = 4, 200


def _write_all(folder: Path, name: str, start: Any, results: Any) -> None:
    start.wait()
    text = name * 5000
    results.put([n for n in range(FILES) if create_once(folder / f"{n}", lambda path: path.write_text(text))])


def test_of_many_writers_one_makes_each_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(WRITERS), context.Queue()
    names = "abcd"
    writers = [context.Process(target=_write_all, args=(tmp_path, name, start, results)) for name in names]
    for writer in writers:
        writer.start()
    made = sorted(number for _ in writers for number in results.get(timeout=60))
    for writer in writers:
        writer.join()
    assert made == list(range(FILES))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(str(n) for n in range(FILES))
    contents = {p.read_text() for p in tmp_path.iterdir()}
    assert contents <= {name * 5000 for name in names}


def test_a_file_that_is_there_stays_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert create_once(path, lambda temporary: temporary.write_text("first"))
    assert not create_once(path, lambda temporary: temporary.write_text("second"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "first")]


def test_a_folder_that_cannot_be_made_is_no_finished_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageFailed, match="cannot write"):
        create_once(tmp_path / "taken" / "file", lambda temporary: temporary.write_text("first"))
