"""A real champion scores real weather, and each prediction is traced back to data and code, whole and broken."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Place:
    """A home of its own and the command line in it; the use case is wind, as in the repository."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "DRIFTLINE_HOME": str(home),
            "DRIFTLINE_FEATURE_REPO": str(ROOT / "feature_repo"),
        }

    def start(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate()
        return process.returncode, out, err

    def score(self, first: str, last: str, *words: str) -> tuple[int, dict[str, Any]]:
        period = ["--from", first, "--to", last, "--json"]
        code, out, err = self.run("run", "scoring", "--use-case", "wind", *period, *words)
        assert out, err
        return code, json.loads(out)

    def lineage(self, prediction: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run("lineage", prediction, "--use-case", "wind", "--json")
        assert out, err
        return code, json.loads(out)

    @property
    def days(self) -> dict[str, bytes]:
        return {p.parent.name: p.read_bytes() for p in self.home.glob("predictions/wind/*/batch-*.parquet")}

    def only(self, pattern: str) -> Path:
        (path,) = self.home.glob(pattern)
        return path


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("wind") / "home")
    code, out, err = place.run("run", "training", "--use-case", "wind", "--json")
    assert code == 0, out + err
    return place


@pytest.fixture(scope="session")
def scored(place: Place) -> dict[str, Any]:
    code, document = place.score("2013-07-01", "2013-07-03")
    assert code == 0, document
    return document


def test_a_period_is_scored_and_a_longer_one_keeps_its_days(place: Place, scored: dict[str, Any]) -> None:
    assert [step["name"] for step in scored["steps"]] == ["claim", "ingest", "scoring-set", "score"]
    assert (scored["state"], scored["days_scored"], scored["days_kept"]) == ("succeeded", 2, 0)
    assert (scored["model_versions"], scored["rows_unanswered"]) == ([1], 0)
    table = pq.read_table(scored["predictions"])
    assert table.column_names == ["forecast_id", "event_timestamp", "prediction", "model_version"]
    assert table.num_rows == scored["rows"] > 100
    before = place.days
    assert sorted(before) == ["2013-07-01", "2013-07-02"]
    code, longer = place.score("2013-07-02", "2013-07-05")
    assert (code, longer["days_scored"], longer["days_kept"]) == (0, 2, 1)
    assert {day: place.days[day] for day in before} == before
    assert sorted(place.days)[-1] == "2013-07-04"


def test_a_run_that_is_killed_is_completed_by_the_next(place: Place, scored: dict[str, Any]) -> None:
    process = place.start("run", "scoring", "--use-case", "wind", "--from", "2013-07-10", "--to", "2013-08-20")
    deadline = time.monotonic() + 300
    while not (present := [day for day in place.days if day >= "2013-07-10"]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {day: content for day, content in place.days.items() if day in present}
    code, document = place.score("2013-07-10", "2013-08-20")
    assert code == 0, document
    assert document["days_scored"] + document["days_kept"] == 41
    assert document["days_kept"] >= len(present)
    assert {day: place.days[day] for day in before} == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--from", "2013-07-05", "--to", "2013-07-05"), "the period to score is empty"),
        (("--from", "2013-07-05T12:00", "--to", "2013-07-07"), "first is not a whole UTC day"),
        (("--to", "2013-07-08", "--as-of", "2013-07-07"), "the period to score has not ended"),
        (("--to", "soon"), "--to is not an ISO 8601 date"),
    ],
)
def test_a_wrong_period_is_a_usage_error(place: Place, words: tuple[str, ...], text: str) -> None:
    code, _, err = place.run("run", "scoring", "--use-case", "wind", *words)
    assert code == 2
    assert text in err
    assert "Traceback" not in err


def test_a_period_without_rows_fails_and_says_what_there_is(place: Place, scored: dict[str, Any]) -> None:
    code, document = place.score("2012-01-01", "2012-01-03", "--as-of", "2013-07-03")
    assert code == 1
    assert (document["state"], document["failure"]["type"]) == ("failed", "DataError")
    assert "rows from 2013-01-01T" in document["failure"]["message"]
    assert document["rows"] is None


def test_every_link_of_a_prediction_is_verified_in_three_seconds(place: Place, scored: dict[str, Any]) -> None:
    started = time.process_time(), os.times()
    code, document = place.lineage(scored["example"])
    used = os.times().children_user + os.times().children_system
    used -= started[1].children_user + started[1].children_system
    assert code == 0, document
    assert document["verified"]
    (found,) = document["predictions"]
    links = {link["name"]: link for link in found["links"]}
    assert list(links) == [
        "prediction",
        "model",
        "bento",
        "promotion",
        "run",
        "mlflow",
        "features",
        "training_set",
        "snapshot",
        "code",
        "cause",
    ]
    assert {link["state"] for link in links.values()} == {"verified"}
    assert Path(links["bento"]["details"]["uri"]).is_file()
    assert set(links["snapshot"]["details"]["tables"]) == {"forecasts", "neighbours", "station_hours", "station_trends"}
    assert list(links["snapshot"]["details"]["sources"]) == ["hourly_weather"]
    assert found["prediction"]["inputs"]["station"] == scored["example"][:3]
    assert used < 3, "CPU-seconds"
    code, text, _ = place.run("lineage", scored["example"])
    assert code == 0
    assert text.count("✔") == len(links)


@contextmanager
def changed(path: Path, change: Callable[[Path], object]) -> Iterator[None]:
    """Change a file or folder for the time of a block."""
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    try:
        if kept.is_dir():
            shutil.copytree(kept, path)
        else:
            shutil.copy2(kept, path)
        change(path)
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        kept.rename(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def reject(path: Path) -> None:
    verdict = json.loads(path.read_text())
    verdict["reasons"][0]["message"] = "looks good to me"
    path.write_text(json.dumps(verdict))


def forget_month(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["tables"]["forecasts"]["partitions"].pop()
    path.write_text(json.dumps(manifest))


def sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    return change


def raise_predictions(path: Path) -> None:
    table = pq.read_table(path)
    doubled = [2 * value for value in table["prediction"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", [doubled]), path)


TRAINING = "runs/*/artifacts/wind-training-*"


@pytest.mark.parametrize(
    ("pattern", "change", "states"),
    [
        ("predictions/wind/2013-07-02/batch-*.parquet", raise_predictions, {"prediction": "broken"}),
        ("bentos/*.tar", append, {"bento": "broken"}),
        # What training wrote stands in for the model files of the archive.
        ("bentos/*.tar", remove, {"bento": "broken", "features": "unverified"}),
        (f"{TRAINING}/evaluate/verdict", reject, {"promotion": "broken"}),
        (f"{TRAINING}/evaluate/verdict", remove, {"promotion": "unverified"}),
        ("mlflow/mlflow.db", remove, {"mlflow": "unverified"}),
        (
            "mlflow/mlflow.db",
            sql("UPDATE model_version_tags SET value = 'other' WHERE key = 'driftline.snapshot'"),
            {"mlflow": "broken"},
        ),
        ("mlflow/mlflow.db", sql("DELETE FROM model_versions"), {"mlflow": "broken"}),
        (f"{TRAINING}/features/training_set/registry.pb", append, {"features": "broken"}),
        (f"{TRAINING}/features/training_set/training_set.parquet", append, {"training_set": "broken"}),
        (f"{TRAINING}/features/training_set", remove, {"features": "unverified", "training_set": "unverified"}),
        ("snapshots/wind/forecasts/2013-02/*.parquet", append, {"snapshot": "broken"}),
        ("ledger.db", sql("UPDATE runs SET state = 'failed' WHERE pipeline = 'training'"), {"run": "broken"}),
        (
            "ledger.db",
            sql("UPDATE promotions SET verdict_digest = 'x'"),
            {"promotion": "broken"},
        ),
        ("ledger.db", sql("DELETE FROM bentos"), {"bento": "broken", "features": "unverified"}),
    ],
)
def test_a_broken_link_is_named_and_the_others_stand(
    place: Place, scored: dict[str, Any], pattern: str, change: Callable[[Path], object], states: dict[str, str]
) -> None:
    with changed(place.only(pattern), change):
        code, document = place.lineage(scored["example"])
    assert code == 1
    assert not document["verified"]
    (found,) = document["predictions"]
    assert {link["name"]: link["state"] for link in found["links"] if link["state"] != "verified"} == states
    assert all(link["note"] for link in found["links"])


def test_a_manifest_that_was_changed_is_named(place: Place, scored: dict[str, Any]) -> None:
    _, whole = place.lineage(scored["example"])
    links = {link["name"]: link for link in whole["predictions"][0]["links"]}
    with changed(Path(links["snapshot"]["details"]["manifest"]), forget_month):
        code, document = place.lineage(scored["example"])
    assert code == 1
    bad = [link["name"] for link in document["predictions"][0]["links"] if link["state"] != "verified"]
    assert bad == ["snapshot"]
    with changed(place.home / "runs" / links["run"]["value"], remove):
        code, document = place.lineage(scored["example"])
    bad = [link["name"] for link in document["predictions"][0]["links"] if link["state"] == "unverified"]
    assert bad == ["promotion", "run", "features", "training_set"]
