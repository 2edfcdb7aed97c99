"""Scoring a period: right, once a day, by one champion a day, whatever is killed or runs beside it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from components.core.bundle import Column, Encoding
from components.core.errors import DataError, PackagingFailed
from components.core.inference_log import METADATA, Origin, create_part, log_schema, read_predictions
from components.core.serving import read_spec
from components.core.settings import Settings
from components.core.training_set import ROWS, read_manifest, write_manifest
from components.score.model import encode_inputs
from components.score.score import score
from components.serve.predictor import Scorer

START = datetime(2013, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FAR = START + 1000 * DAY
Crown = Callable[..., Any]
Write = Callable[..., Path]


def log_files(settings: Settings) -> dict[str, bytes]:
    """Return every file below the log's root, temporary ones included."""
    root = settings.predictions
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_every_row_is_answered_as_serving_would(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path
) -> None:
    served = crown(settings, 2)
    folder = scoring_set()
    made = score(settings, "rides", scoring_set=folder, output=tmp_path / "out")
    rows = pq.read_table(folder / ROWS).to_pylist()
    spec = read_spec(served.bundle)
    expected = Scorer(served.bundle).score([{c.name: row[c.name] for c in spec.inputs} for row in rows])
    log = read_predictions(settings.predictions, "rides", START, FAR)
    assert log.schema == log_schema(spec)
    assert log.column("prediction").to_pylist() == pytest.approx(expected.tolist(), abs=1e-7)
    logged = log.to_pylist()
    assert [row["request_id"] for row in logged] == [row["ride"] for row in rows]
    for row, entry in zip(rows, logged, strict=True):
        assert entry["as_of"] == row["event_timestamp"]
        assert [entry[f"key_{name}"] for name in spec.entities] == [row[name] for name in spec.entities]
        assert {c.name: entry[f"input_{c.name}"] for c in spec.inputs} == {c.name: row[c.name] for c in spec.inputs}
        features = [c.name for c in spec.inputs if c.view]
        assert entry["missing"] == [name for name in features if row[name] is None]
        assert (entry["route"], entry["stale"], entry["row"]) == ("scoring", [], 0)
        assert (entry["model_version"], entry["model"]) == (2, spec.model)
        assert entry["served_at"] == START + 3 * DAY
    output = pq.read_table(tmp_path / "out")
    assert output.column_names == ["ride", "event_timestamp", "prediction", "model_version"]
    assert output["ride"].to_pylist() == [row["ride"] for row in rows]
    assert output["prediction"].to_pylist() == log["prediction"].to_pylist()
    assert made.measurements == {
        "rows": 60.0,
        "rows_unanswered": 0.0,
        "days_scored": 3.0,
        "days_kept": 0.0,
        "mean_prediction": pytest.approx(float(expected.mean())),
    }
    files = sorted(settings.predictions.rglob("*"))
    assert [str(p.relative_to(settings.predictions)) for p in files if p.is_file()] == [
        f"rides/2013-04-0{n}/batch-00000000.parquet" for n in (1, 2, 3)
    ]
    origin = Origin.model_validate_json(pq.read_metadata(files[-1]).metadata[METADATA])
    assert origin == Origin(writer="batch", sequence=0, written=20, dropped=0)


def test_a_day_keeps_the_champion_that_answered_it(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path
) -> None:
    crown(settings, 1)
    first = score(settings, "rides", scoring_set=scoring_set("set2", days=2), output=tmp_path / "one")
    before = log_files(settings)
    crown(settings, 2)
    second = score(settings, "rides", scoring_set=scoring_set("set4", days=4), output=tmp_path / "two")
    assert (first.days_scored, first.model_versions) == (2, [1])
    assert (second.days_scored, second.days_kept, second.model_versions) == (2, 2, [1, 2])
    after = log_files(settings)
    assert {name: after[name] for name in before} == before
    versions = pq.read_table(tmp_path / "two").to_pylist()
    assert {(row["event_timestamp"].day, row["model_version"]) for row in versions} == {(1, 1), (2, 1), (3, 2), (4, 2)}
    third = score(settings, "rides", scoring_set=scoring_set("again", days=4), output=tmp_path / "three")
    assert (third.days_scored, third.days_kept, third.digest) == (0, 4, second.digest)
    assert log_files(settings) == after


def test_kept_days_need_no_champion(settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path) -> None:
    crown(settings, 1)
    folder = scoring_set()
    first = score(settings, "rides", scoring_set=folder, output=tmp_path / "one")
    for archive in settings.bentos.iterdir():
        archive.unlink()
    assert score(settings, "rides", scoring_set=folder, output=tmp_path / "two").digest == first.digest


def test_rows_that_join_a_day_later_stay_unanswered(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crown(settings, 1)
    folder = scoring_set()
    whole = pq.read_table(folder / ROWS)
    _replace_rows(folder, whole.filter(pc.not_equal(whole["ride"], "r00003")))
    score(settings, "rides", scoring_set=folder, output=tmp_path / "one")
    _replace_rows(folder, whole)
    made = score(settings, "rides", scoring_set=folder, output=tmp_path / "two")
    assert (made.rows, made.rows_unanswered, made.days_kept) == (59, 1, 3)
    assert "2013-04-01: 1 rows without a prediction" in caplog.text


PROGRAM = """
import sys
from pathlib import Path
from components.core.settings import Settings
from components.score.score import score
settings = Settings.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(score(settings, "rides", scoring_set=Path(sys.argv[2]), output=Path(sys.argv[3])).days_scored)
"""


def start_scoring(settings: Settings, folder: Path, output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json(), str(folder), str(output)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[3])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("after", [0, 1, 7, 30, 59])
def test_a_killed_scoring_is_completed_by_the_next(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path, after: int
) -> None:
    crown(settings, 1)
    folder = scoring_set(days=60, rows=4)
    whole = settings.model_copy(update={"inference_log": tmp_path / "whole"})
    expected = score(whole, "rides", scoring_set=folder, output=tmp_path / "expected")
    process = start_scoring(settings, folder, tmp_path / "out")
    go(process)
    while len(list(settings.predictions.glob("*/*/batch-00000000.parquet"))) < after and process.poll() is None:
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    assert end(process)[0] in (0, -signal.SIGKILL)
    present = list(settings.predictions.glob("*/*/[!.]*"))
    assert all(pq.read_table(path).num_rows == 4 for path in present)
    made = score(settings, "rides", scoring_set=folder, output=tmp_path / "out")
    assert (made.days_kept, made.days_scored) == (len(present), 60 - len(present))
    assert made.digest == expected.digest
    complete = {name: content for name, content in log_files(settings).items() if "/." not in name}
    assert complete == log_files(whole)


def test_two_scorings_at_once_answer_each_day_once(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path
) -> None:
    """The champion changes between two runs: a ledger each, with one log."""
    folder = scoring_set(days=80, rows=3)
    places = []
    for version in (1, 2):
        home = tmp_path / f"home{version}"
        changes = {"home": home, "ledger_url": f"sqlite:///{home}/ledger.db", "inference_log": settings.predictions}
        places.append(settings.model_copy(update=changes))
        crown(places[-1], version)
    processes = [start_scoring(place, folder, tmp_path / f"out{n}") for n, place in enumerate(places)]
    for process in processes:
        go(process)
    ended = [end(process) for process in processes]
    assert [code for code, _ in ended] == [0, 0]
    # Each day was made by one of them, also where both found it missing.
    assert sum(int(days) for _, days in ended) == 80
    files = [p for p in settings.predictions.rglob("*") if p.is_file()]
    assert len(files) == 80
    versions = {path: set(pq.read_table(path)["model_version"].to_pylist()) for path in files}
    assert all(len(found) == 1 for found in versions.values())
    outputs = [pq.read_table(tmp_path / f"out{n}") for n in (0, 1)]
    assert outputs[0].num_rows == 240
    # What a run hands on is what the log says, also for the days that the other one wrote.
    assert outputs[0].equals(outputs[1])


def test_a_day_that_appears_before_its_file_is_made_is_kept(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path
) -> None:
    """Two runs found the day missing; what the slower one writes is dropped."""
    crown(settings, 1)
    score(settings, "rides", scoring_set=scoring_set(), output=tmp_path / "out")
    before = log_files(settings)
    table = read_predictions(settings.predictions, "rides", START, START + DAY)
    other = table.set_column(table.column_names.index("prediction"), "prediction", pc.add(table["prediction"], 1.0))
    origin = Origin(writer="batch", sequence=0, written=20, dropped=0)
    assert not create_part(settings, "rides", "2013-04-01", other, origin)
    assert create_part(settings, "rides", "2013-05-01", other, origin)
    after = log_files(settings)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_what_cannot_be_scored_is_refused_and_nothing_is_logged(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path
) -> None:
    folder = scoring_set()

    def refused(error: type[Exception], text: str, folder: Path = folder, use_case: str = "rides") -> None:
        with pytest.raises(error, match=text):
            score(settings, use_case, scoring_set=folder, output=tmp_path / "out")
        assert not settings.predictions.exists()
        assert not (tmp_path / "out").exists()

    from components.core.ledger.engine import migrate

    migrate(settings.ledger_url)
    refused(PackagingFailed, "rides has no champion yet")
    crown(settings, 1)
    refused(DataError, "belongs to another use case; measured: rides; allowed: other", use_case="other")
    renamed = scoring_set("renamed")
    manifest = read_manifest(renamed)
    inputs = [
        i.model_copy(update={"name": "other"})
        if i.name == "distance"
        else i.model_copy(update={"ttl_seconds": 60})
        if i.name == "pair_delay"
        else i
        for i in manifest.inputs
    ]
    write_manifest(renamed, manifest.model_copy(update={"inputs": inputs}))
    refused(
        DataError,
        r"does not fit version 1 of rides; measured: other \(number\), pair_delay \(number of pair_stats, 60 s\); "
        r"allowed: distance \(number\), pair_delay \(number of pair_stats, 86400 s\)",
        renamed,
    )
    swapped = scoring_set("swapped")
    write_manifest(swapped, manifest.model_copy(update={"inputs": manifest.inputs[::-1], "digest": _digest(swapped)}))
    refused(DataError, "does not fit version 1 of rides; measured: inputs badge_year, pair_delay", swapped)
    changed = scoring_set("changed")
    with (changed / ROWS).open("ab") as file:
        file.write(b" ")
    refused(DataError, "the scoring set was changed", changed)
    infinite = scoring_set("infinite", distance=[np.inf] * 60)
    refused(DataError, "inputs hold infinite numbers, .* measured: distance", infinite)
    refused(DataError, "ids are not unique", scoring_set("same", ride=["a"] * 60))
    (archive,) = settings.bentos.iterdir()
    with archive.open("ab") as file:
        file.write(b" ")
    refused(PackagingFailed, "is not the one that was probed")
    archive.unlink()
    refused(PackagingFailed, "is gone")


@pytest.mark.parametrize(("policy", "decisive"), [("missing", ["badge_year"]), ("stale", [])])
def test_rows_that_serving_would_refuse_are_not_answered(
    settings: Settings, crown: Crown, scoring_set: Write, tmp_path: Path, policy: str, decisive: list[str]
) -> None:
    crown(settings, 1, **{policy: "reject"})
    folder = scoring_set()
    made = score(settings, "rides", scoring_set=folder, output=tmp_path / "out")
    names = ["origin_late", "origin_kind", "pair_delay", *decisive]
    expected = [r["ride"] for r in pq.read_table(folder / ROWS).to_pylist() if all(r[n] is not None for n in names)]
    assert pq.read_table(tmp_path / "out")["ride"].to_pylist() == expected
    assert (made.rows, made.rows_unanswered) == (len(expected), 60 - len(expected))
    assert 0 < len(expected) < 60


texts = st.none() | st.sampled_from(["AA", "B6", "ZZ", ""])
numbers = st.none() | st.floats(width=32)


@examples(deadline=None)
@given(rows=st.lists(st.tuples(texts, numbers, st.none() | st.integers(0, 3)), max_size=30))
def test_columns_are_encoded_as_serving_encodes_rows(rows: list[tuple[Any, Any, Any]]) -> None:
    columns = [
        Column(name="carrier", kind="category", categories=["AA", "B6"]),
        Column(name="distance", kind="number"),
        Column(name="gate", kind="category", categories=["0", "2"]),
    ]
    encoding = Encoding(columns=columns)
    values = {c.name: [row[n] for row in rows] for n, c in enumerate(columns)}
    types = {"carrier": pa.string(), "distance": pa.float64(), "gate": pa.int64()}
    table = pa.table({name: pa.array(given, types[name]) for name, given in values.items()})
    np.testing.assert_array_equal(encode_inputs(encoding, table), encoding.encode(values, len(rows)))


def _digest(folder: Path) -> str:
    from components.core.digests import file_digest

    return file_digest(folder / ROWS)


def _replace_rows(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / ROWS)
    changes = {"digest": _digest(folder), "rows": table.num_rows}
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))
