"""Finding predictions in hand-made logs, and what a lineage says when little is kept."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from components.core.errors import ConfigError, DataError
from components.core.evidence import Evidence, Window
from components.core.inference_log import LOOKUP, Entry, Origin, encode, split_days, write_part
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.connections import writing
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import next_dispatch
from components.core.ledger.runs import claim_run
from components.core.ledger.schema import decisions
from components.core.ledger.suppression import Limits
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.core.training_set import Input
from pipelines.lineage.link import compared
from pipelines.lineage.model import cause_link, gather
from pipelines.lineage.search import find_predictions
from pipelines.lineage.trace import trace

START = datetime(2013, 4, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def spec(use_case: str = "rides", version: int = 1) -> ServingSpec:
    return ServingSpec(
        use_case=use_case,
        version=version,
        model=str(version) * 64,
        entities={"carrier": "string"},
        inputs=[Input(name="carrier", kind="category"), Input(name="distance", kind="number", view="stats")],
        stale="null",
        missing="null",
        buckets=[0.5],
        workers=1,
        timeout_seconds=10,
        max_batch_rows=100,
        max_request_bytes=20_000,
    )


def put(root: Path, described: ServingSpec, ids: list[str], at: datetime, writer: str = "w") -> Path:
    entries: list[Entry] = [
        (name, at.timestamp(), at.timestamp(), LOOKUP, [("AA", "AA", None)], [], ["distance"], [0.25]) for name in ids
    ]
    ((day, table),) = split_days(encode(described, entries))
    origin = Origin(writer=writer, sequence=0, written=len(ids), dropped=0)
    return write_part(root, described.use_case, day, table, origin)


def test_all_occurrences_are_listed_newest_day_first(tmp_path: Path) -> None:
    put(tmp_path, spec(version=1), ["a", "b"], START)
    put(tmp_path, spec(version=2), ["b", "c"], START + 2 * DAY)
    put(tmp_path, spec("other", version=3), ["b"], START + DAY)
    found = find_predictions(tmp_path, "b")
    assert [row.model[:2] for row in found] == [("rides", 2), ("other", 3), ("rides", 1)]
    assert [row.fields["as_of"] for row in found] == [START + 2 * DAY, START + DAY, START]
    assert [row.model[0] for row in find_predictions(tmp_path, "b", "other")] == ["other"]
    (only,) = find_predictions(tmp_path, "a")
    assert (only.keys, only.inputs) == ({"carrier": "AA"}, {"carrier": "AA", "distance": None})
    assert only.fields["missing"] == ["distance"]


def test_unknown_ids_and_use_cases(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prediction has this id; measured: a; allowed: a request id in 0 files"):
        find_predictions(tmp_path / "none", "a")
    put(tmp_path, spec(), ["b"], START)
    with pytest.raises(DataError, match="no prediction has this id; measured: a; allowed: a request id in 1 files"):
        find_predictions(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"other has no inference log; .* allowed: rides"):
        find_predictions(tmp_path, "b", "other")


def test_a_damaged_file_is_reported_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = put(tmp_path, spec(), ["a"], START)
    damaged = put(tmp_path, spec(), ["a"], START + DAY)
    damaged.write_bytes(damaged.read_bytes()[:100])
    # A writer that was killed leaves a file without its name.
    whole.with_name(f".{whole.name}.tmp").write_bytes(b"half")
    assert [row.file for row in find_predictions(tmp_path, "a")] == [whole]
    assert str(damaged) in caplog.text


@examples(deadline=None, max_examples=40)
@given(
    days=st.lists(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6), min_size=1, max_size=4),
    asked=st.text("ab", min_size=1, max_size=3),
)
def test_search_finds_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory, days: list[list[str]], asked: str
) -> None:
    root = tmp_path_factory.mktemp("log")
    for number, ids in enumerate(days):
        put(root, spec(), ids, START + number * DAY)
    expected = [START + n * DAY for n, ids in enumerate(days) for name in ids if name == asked]
    try:
        found = [row.fields["as_of"] for row in find_predictions(root, asked)]
    except DataError:
        found = []
    assert found == expected[::-1]


def test_without_anything_kept_every_link_says_why(settings: Settings) -> None:
    migrate(settings.ledger_url)
    put(settings.predictions, spec(), ["a"], START)
    (found,) = trace(settings, "a")
    assert not found.verified
    assert {link.name: (link.state, link.note) for link in found.links} == {
        "prediction": ("unverified", "the files of this model are gone"),
        "model": ("unverified", "its files are gone"),
        "bento": ("broken", "the ledger has no Bento of this release"),
        "promotion": ("broken", "the ledger has no promotion of version 1"),
        "run": ("unverified", "unknown without a promotion"),
        **dict.fromkeys(
            ("mlflow", "features", "training_set", "snapshot", "code"),
            ("unverified", "unknown: the model's card is gone with its files"),
        ),
        "cause": ("unverified", "unknown without a run"),
    }


def test_the_decision_behind_a_retraining_is_the_cause(settings: Settings, tmp_path: Path) -> None:
    migrate(settings.ledger_url)
    ledger = open_ledger(settings.ledger_url)
    window = Window(first=START, last=START + 7 * DAY)
    evidence = Evidence(
        use_case="rides",
        window=window,
        as_of=window.last + 2 * DAY,
        version=1,
        model="1" * 64,
        rows=900,
        labelled_rows=900,
        sanity=[],
    )
    proposal = Proposal(
        decision="retrain",
        rung="performance",
        reasons=["auc fell to 0.61"],
        policy="ladder",
        policy_digest="5" * 64,
        evidence=evidence,
    )
    limits = Limits(cooldown=2 * DAY, max_per_week=1, lease=timedelta(hours=2))
    decision = decide_once(ledger, proposal, limits, datetime.now(UTC))
    assert decision.request is not None
    attempt = next_dispatch(ledger, decision.request, now=datetime.now(UTC))
    assert attempt is not None
    assert claim_run(ledger, attempt.run_id, attempt.run_id, "training", "rides")
    candidate = Candidate(
        model="rides",
        version=2,
        digest="2" * 64,
        bento_digest="b",
        bento_uri=str(tmp_path / "b.tar"),
        run_id=attempt.run_id,
        verdict_digest="v",
        as_of=window.last + 2 * DAY,
    )
    assert promote(ledger, candidate, None) == "promoted"
    subject = gather(settings, ledger, ("rides", 2, "2" * 64), tmp_path / "scratch")
    link = cause_link(subject)
    assert (link.state, link.value) == ("verified", decision.id)
    assert link.note == "performance in 2013-04-01 to 2013-04-08: auc fell to 0.61"
    assert link.details["request"]["id"] == decision.request
    assert (link.details["attempt"]["run_id"], link.details["attempt"]["state"]) == (attempt.run_id, "succeeded")
    with writing(ledger) as connection:
        forged = evidence.model_copy(update={"rows": 901}).model_dump_json()
        connection.execute(sa.update(decisions).values(evidence=forged))
    assert cause_link(subject).state == "broken"


def test_a_comparison_shows_both_sides() -> None:
    assert compared("bento", "a", "a", "archive").state == "verified"
    differs = compared("bento", "a", "b", "archive")
    assert (differs.state, differs.note) == ("broken", "archive: found b")


def test_the_command_answers_with_its_exit_codes(settings: Settings) -> None:
    def lineage(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", "from pipelines.cli import main; main()", "lineage", *words],
            env={**os.environ, "DRIFTLINE_HOME": str(settings.home)},
            capture_output=True,
            text=True,
            check=False,
        )

    put(settings.predictions, spec(), ["a b"], START)
    done = lineage("a b")
    assert done.returncode == 1
    assert "LedgerError" in done.stderr
    migrate(settings.ledger_url)
    done = lineage("a b")
    assert done.returncode == 1
    assert done.stdout.startswith("a b of rides, row 0: 0.25 by version 1, as of 2013-04-01T10:00:00+00:00")
    assert "✘ bento           broken: the ledger has no Bento of this release" in done.stdout
    assert lineage("nope").returncode == 1
    assert lineage("a b", "--use-case", "nope").returncode == 2
