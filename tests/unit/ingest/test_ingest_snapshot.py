"""Ingest on real files: what is written, what is refused, and that nothing is half-written."""

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.core.errors import ConfigError, DataError, StorageFailed
from components.core.sections import Data, Problem
from components.core.settings import Settings
from components.core.tables import Snapshot, read_table
from components.ingest.snapshot import take_snapshot

HEADER = "id,station,seen,truth_at,temp,hot\n"
ROWS = [
    "a,JFK,2020-01-31T23:00:00Z,2020-02-01T02:00:00Z,1.5,0",
    "b,JFK,2020-02-01T00:00:00Z,2020-02-01T03:00:00Z,2.5,1",
    "c,LGA,2020-02-01T00:00:00Z,,3.5,",
]
SQL = {
    "readings": "SELECT station, seen AS event_timestamp, temp FROM raw",
    "forecasts": "SELECT id, station, seen AS event_timestamp, truth_at AS label_timestamp, temp, hot FROM raw",
}
PROBLEM = Problem(
    task="classification",
    table="forecasts",
    label="hot",
    id=["id"],
    entities=["station"],
    inputs={"temp": "number"},
)
COLUMNS = {
    "id": "VARCHAR",
    "station": "VARCHAR",
    "seen": "TIMESTAMPTZ",
    "truth_at": "TIMESTAMPTZ",
    "temp": "DOUBLE",
    "hot": "DOUBLE",
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"feature_repo": tmp_path / "repo"})


def declare(path: str = "raw.csv", **changes: object) -> Data:
    return Data.model_validate(
        {
            "start": "2020-01-01",
            "sources": {"raw": {"path": path, "columns": COLUMNS, **changes}},
            "tables": {"readings": {"keys": ["station"]}},
        }
    )


def write_csv(settings: Settings, rows: list[str] = ROWS, header: str = HEADER) -> Path:
    folder = settings.feature_repo / "case"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "raw.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    return path


def take(
    settings: Settings, data: Data | None = None, sql: dict[str, str] | None = None, as_of: str = "2020-03-01"
) -> Snapshot:
    return take_snapshot(
        settings, "case", problem=PROBLEM, data=data or declare(), sql={**SQL, **(sql or {})}, as_of=as_of
    )


def files(settings: Settings) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in settings.snapshots.rglob("*.parquet")}


def test_tables_are_partitioned_by_month_and_get_a_created_timestamp(settings: Settings) -> None:
    write_csv(settings)
    snapshot = take(settings)
    assert [p.month for p in snapshot.tables["readings"].partitions] == ["2020-01", "2020-02"]
    table = read_table(settings.snapshots, snapshot, "readings")
    assert table.column("created_timestamp").equals(table.column("event_timestamp"))
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert table.column("temp").to_pylist() == [1.5, 2.5, 3.5]


def test_a_second_run_writes_nothing_and_agrees(settings: Settings) -> None:
    write_csv(settings)
    first = take(settings)
    before = files(settings)
    second = take(settings)
    assert second.digest == first.digest
    assert files(settings) == before


def test_a_changed_value_changes_the_digest_of_its_month_only(settings: Settings) -> None:
    write_csv(settings)
    first = take(settings).tables["readings"].partitions
    write_csv(settings, [*ROWS[:2], ROWS[2].replace("3.5", "3.6")])
    second = take(settings).tables["readings"].partitions
    assert first[0].sha256 == second[0].sha256
    assert first[1].sha256 != second[1].sha256


def test_row_order_of_the_source_does_not_matter(settings: Settings) -> None:
    write_csv(settings)
    first = take(settings).digest
    write_csv(settings, ROWS[::-1])
    assert take(settings).digest == first


def test_as_of_hides_later_rows_and_unripe_labels(settings: Settings) -> None:
    write_csv(settings)
    snapshot = take(settings, as_of="2020-02-01T02:30:00+00:00")
    table = read_table(settings.snapshots, snapshot, "forecasts").sort_by("id")
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    # b's truth comes at 03:00, after as_of: neither label nor its instant may show.
    assert table.column("hot").to_pylist() == [0.0, None, None]
    assert table.column("label_timestamp").to_pylist() == [datetime(2020, 2, 1, 2, tzinfo=UTC), None, None]
    early = take(settings, as_of="2020-02-01")
    assert pc.max(read_table(settings.snapshots, early, "readings").column("event_timestamp")).as_py() < datetime(
        2020, 2, 1, tzinfo=UTC
    )


def test_zip_parquet_and_uri_sources_are_equal_to_plain_csv(settings: Settings, tmp_path: Path) -> None:
    path = write_csv(settings)
    expected = take(settings).digest
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.write(path, "raw.csv")
    assert take(settings, declare("raw.zip")).digest == expected
    assert take(settings, declare(path.as_uri())).digest == expected
    parsed = read_table(settings.snapshots, take(settings), "forecasts")
    renamed = parsed.drop_columns(["created_timestamp"]).rename_columns(
        {"event_timestamp": "seen", "label_timestamp": "truth_at"}
    )
    pq.write_table(renamed, path.with_suffix(".parquet"))
    assert take(settings, declare("raw.parquet", format="parquet")).digest == expected


@pytest.mark.parametrize(
    ("rows", "header", "error", "words"),
    [
        (["a,JFK,2020-01-31T23:00:00Z,,warm,"], HEADER, DataError, ["raw", "warm", "DOUBLE"]),
        (ROWS, HEADER.replace("temp", "tmp"), DataError, ["lacks declared columns", "temp"]),
        ([], HEADER, DataError, ["readings is empty"]),
        ([ROWS[0], ROWS[0]], HEADER, DataError, ["duplicate keys", "JFK"]),
        (["a,JFK,2020-01-31T23:00:00Z,,1.5,1"], HEADER, DataError, ["lack the instant", "1 rows"]),
        (["a,JFK,2020-01-31T23:00:00Z,2999-01-01T00:00:00Z,1.5,1"], HEADER, DataError, ["from the future", "2999"]),
        (["a,JFK,,,1.5,"], HEADER, DataError, ["must not be null"]),
        (["a,JFK"], HEADER, DataError, ["raw"]),
    ],
    ids=["type", "column", "empty", "duplicate", "undated", "future", "null-instant", "short-row"],
)
def test_bad_data_is_refused_and_leaves_nothing(
    settings: Settings, rows: list[str], header: str, error: type[Exception], words: list[str]
) -> None:
    write_csv(settings, rows, header)
    with pytest.raises(error) as caught:
        take(settings)
    for word in words:
        assert word in str(caught.value)
    assert not list(settings.snapshots.rglob("*.json"))
    write_csv(settings)
    assert take(settings).tables["forecasts"].rows == 3


def test_missing_and_corrupt_files_are_named(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"source file is missing.*raw\.csv"):
        take(settings)
    path = write_csv(settings)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(DataError, match="UTF-8"):
        take(settings)
    path.with_suffix(".zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="archive is corrupt"):
        take(settings, declare("raw.zip"))
    path.with_suffix(".parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        take(settings, declare("raw.parquet", format="parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        take(settings, declare("file:///nowhere/raw.csv"))
    with pytest.raises(ConfigError, match="not installed"):
        take(settings, declare("x.csv", package="no-such-package"))


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("SELECT station, temp FROM raw", ConfigError, "event_timestamp"),
        ("SELECT station, seen AS event_timestamp, temp FROM rwa", ConfigError, "rwa"),
        ("SELECT 1; SELECT 2", ConfigError, "one SELECT"),
        ("DROP TABLE raw", ConfigError, "one SELECT"),
        ("SELEC 1", ConfigError, "not valid SQL"),
        ("SELECT station, seen::TIMESTAMP AS event_timestamp, temp FROM raw", DataError, "not an instant"),
        ("SELECT station, seen::TIMESTAMP_NS AS event_timestamp, temp FROM raw", DataError, "not an instant"),
        ("SELECT * FROM read_csv('/etc/passwd')", ConfigError, "disabled"),
    ],
    ids=["no-instant", "no-table", "two", "ddl", "syntax", "naive", "nanoseconds", "file-access"],
)
def test_bad_sql_is_refused(settings: Settings, sql: str, error: type[Exception], words: str) -> None:
    write_csv(settings)
    with pytest.raises(error, match=words):
        take(settings, sql={"readings": sql})


def test_a_home_that_cannot_be_written_is_an_error_with_a_next_step(settings: Settings, tmp_path: Path) -> None:
    write_csv(settings)
    blocked = tmp_path / "file-instead-of-a-folder"
    blocked.write_text("")
    with pytest.raises(StorageFailed, match="DRIFTLINE_HOME"):
        take(settings.model_copy(update={"home": blocked}))


def test_the_same_question_is_answered_from_what_was_taken_before(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "components.ingest.snapshot")
    write_csv(settings)
    first = take(settings)
    take(settings, as_of="2020-02-15")
    caplog.clear()
    assert take(settings) == first
    assert "nothing is read again" in caplog.text
    assert Snapshot.model_validate_json((settings.snapshots / "case" / "latest.json").read_text()) == first


@pytest.mark.parametrize("change", ["source", "sql", "instant", "file", "now"])
def test_another_question_is_read_anew(settings: Settings, caplog: pytest.LogCaptureFixture, change: str) -> None:
    caplog.set_level("INFO", "components.ingest.snapshot")
    write_csv(settings)
    first = take(settings)
    sql = {"readings": SQL["readings"] + " WHERE temp > 2"} if change == "sql" else {}
    if change == "source":
        write_csv(settings, [*ROWS, "d,LGA,2020-02-02T00:00:00Z,,4.5,"])
    if change == "file":
        next(settings.snapshots.rglob("*.parquet")).unlink()
    again = take(settings, sql=sql, as_of={"instant": "2020-02-01T02:30", "now": ""}.get(change, "2020-03-01"))
    assert "nothing is read again" not in caplog.text
    assert (again.digest == first.digest) == (change in ("file", "now"))
    assert all((settings.snapshots / p.path).is_file() for t in again.tables.values() for p in t.partitions)
