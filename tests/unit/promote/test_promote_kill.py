"""Kill -9 of the step `promote` at every statement and commit, of the ledger and of MLflow's store; then again.

The step runs in a real process whose database listeners count what every engine in it does; at the chosen point the
process kills itself. A kill before the next statement is a kill after the commit before it, so no point is left out.
"""

import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from components.core.evidence import Evidence, Window
from components.core.ledger.champions import list_promotions, list_unmirrored, read_champion
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import next_dispatch
from components.core.ledger.runs import list_runs
from components.core.ledger.schema import attempts, requests
from components.core.ledger.suppression import Limits
from components.core.mirror import repair_mirror
from components.core.settings import Settings
from components.core.tracking import champion_alias
from components.promote.promote import promote

log = logging.getLogger(__name__)
FORK = multiprocessing.get_context("fork")
Approve = Callable[..., Any]
AS_OF = datetime(2013, 5, 15, tzinfo=UTC)


def in_process(work: Callable[[], Any], *, die_at: int = 0) -> tuple[int | None, Any, list[str]]:
    """Run work in a process that kills itself before its `die_at`-th statement or commit, 0: never.

    Returns the exit code, the answer and the points that were passed.
    """
    receiver, sender = FORK.Pipe(duplex=False)

    def call() -> None:
        points: list[str] = []

        def passing(point: str) -> None:
            points.append(point)
            if len(points) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.Engine, "before_cursor_execute", lambda *given: passing(str(given[2])))
        sa.event.listen(sa.Engine, "commit", lambda connection: passing(f"COMMIT {connection.engine.url.database}"))
        answer = work()
        sender.send((answer, points))

    process = FORK.Process(target=call)
    process.start()
    sender.close()
    try:
        answer, points = receiver.recv()
    except EOFError:
        answer, points = None, []
    process.join(120)
    return process.exitcode, answer, points


def everything(settings: Settings) -> dict[str, Any]:
    """Return what a promotion may change, without wall-clock instants."""
    from mlflow import MlflowClient

    ledger = open_ledger(settings.ledger_url)
    champion = read_champion(ledger, "flights")
    with ledger.connect() as connection:
        asked = connection.execute(sa.select(requests.c.state, requests.c.outcome, requests.c.attempt)).all()
        tried = connection.execute(sa.select(attempts.c.attempt, attempts.c.state)).all()
    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    versions = client.search_model_versions("name = 'flights'")
    return {
        "champion": champion.model_dump(exclude={"promoted_at"}) if champion else None,
        # A rolled-back insert leaves a gap in PostgreSQL's numbers; their order is compared.
        "history": [line.model_dump(exclude={"at", "id"}) for line in list_promotions(ledger, "flights")],
        "runs": {run.id: (run.state, run.reason, run.as_of) for run in list_runs(ledger)},
        "requests": [tuple(row) for row in asked],
        "attempts": [tuple(row) for row in tried],
        "alias": champion_alias(settings, "flights"),
        "unmirrored": bool(list_unmirrored(ledger)),
        "tags": {v.version: dict(v.tags) for v in versions},
    }


def dispatched_run(settings: Settings) -> str:
    """Request a retraining of champion 1 and return the run that is to carry it out."""
    ledger = open_ledger(settings.ledger_url)
    window = Window(first=AS_OF - timedelta(days=9), last=AS_OF - timedelta(days=2))
    measured: dict[str, Any] = {"as_of": AS_OF, "version": 1, "model": "7", "rows": 900, "labelled_rows": 900}
    evidence = Evidence(use_case="flights", window=window, **measured, sanity=[])
    proposal = Proposal(
        decision="retrain", rung="drift", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )
    limits = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(hours=2))
    attempt = next_dispatch(ledger, str(decide_once(ledger, proposal, limits, AS_OF).request), now=datetime.now(UTC))
    assert attempt is not None
    return attempt.run_id


class Stage:
    """Promotion of version 2 over champion 1, or against a champion that has gone; as often as wanted.

    `requested`: by the attempt at a retraining request instead of a run of its own.
    """

    def __init__(
        self,
        home: Path,
        trained: Path,
        approve: Approve,
        new_ledger: Callable[[], str],
        *,
        wins: bool,
        requested: bool = False,
    ) -> None:
        self.home, self.trained, self.approve, self.new_ledger = home, trained, approve, new_ledger
        self.wins, self.requested = wins, requested

    def prepare(self) -> Any:
        """Return the step's inputs in a fresh home with a fresh ledger."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.trained, self.home)
        url = self.new_ledger()
        migrate(url)
        settings = Settings(
            home=self.home,
            feature_repo=self.home,
            ledger_url=url,
            mlflow_uri=f"sqlite:///{self.home}/mlflow/mlflow.db",
            feature_registry_url="",
            online_store_url="",
        )
        # The request is older than whatever overtakes its run.
        run = dispatched_run(settings) if self.requested else "run-2"
        earlier = [self.approve(settings, 1, None)] + ([] if self.wins else [self.approve(settings, 3, 1)])

        def promote_earlier() -> list[str]:
            return [promote(step.settings, "flights", **step.arguments) for step in earlier]

        assert in_process(promote_earlier)[:2] == (0, ["promoted"] * len(earlier))
        return self.approve(settings, 2, 1, run)

    def rehearse(self) -> tuple[tuple[str, dict[str, Any]], list[str]]:
        """Run the step without a kill; return its answer and the end state, and the points it passes."""
        step = self.prepare()
        code, outcome, points = in_process(lambda: promote(step.settings, "flights", **step.arguments))
        assert code == 0
        _, end, _ = in_process(lambda: everything(step.settings))
        return (outcome, end), points

    def kill(self, at: int, *, repair: bool) -> tuple[str, dict[str, Any]]:
        """Kill the step at a point, look, perhaps repair, run it again; return the answer and the end state."""
        step = self.prepare()
        code, _, _ = in_process(lambda: promote(step.settings, "flights", **step.arguments), die_at=at)
        assert code == -signal.SIGKILL

        def start_again() -> tuple[Any, Any, str, Any]:
            between = everything(step.settings)
            if repair:
                repair_mirror(step.settings)
            repaired = everything(step.settings)
            outcome = promote(step.settings, "flights", **step.arguments)
            return between, repaired, outcome, everything(step.settings)

        code, answer, _ = in_process(start_again)
        assert code == 0
        between, repaired, outcome, end = answer
        promoted = [line for line in between["history"] if line["outcome"] == "promoted"]
        assert between["champion"]["version"] == promoted[-1]["version"]
        run = step.settings.run_key
        ended = between["runs"][run][0] != "running"
        assert ended == any(line["run_id"] == run for line in between["history"])
        if self.requested:
            # Request, attempt and run end together.
            assert between["requests"][0][0] == (("done" if self.wins else "requested") if ended else "claimed")
            assert (between["attempts"][0][1] == "claimed") == (not ended)
        # What the next start looks at before it pays for MLflow.
        assert between["unmirrored"] or between["alias"] == between["champion"]["version"]
        assert repaired["alias"] == (between["champion"]["version"] if repair else between["alias"])
        return outcome, end


@pytest.fixture
def new_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Return a function that gives the URL of one more ledger of the backend in the test's parameter."""
    ledgers = iter(range(10_000))
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/ledger-{next(ledgers)}.db"
    url: str = request.getfixturevalue("postgres_url")

    def empty_schema() -> str:
        with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        return url

    return empty_schema


BACKENDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.mark.parametrize("requested", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("new_ledger", BACKENDS, indirect=True)
def test_kill_9_around_the_commits_of_ledger_and_alias(
    new_ledger: Callable[[], str], tmp_path: Path, trained: Path, approve: Approve, requested: bool
) -> None:
    """The last writing commits: before and after the ledger's swap, before and after the alias."""
    stage = Stage(tmp_path / "home", trained, approve, new_ledger, wins=True, requested=requested)
    expected, points = stage.rehearse()
    assert expected[0] == "promoted"
    swap = next(n for n, point in enumerate(points, 1) if "UPDATE champions" in point)
    committed = next(n for n, point in enumerate(points, 1) if n > swap and point.startswith("COMMIT"))
    alias = next(n for n, point in enumerate(points, 1) if "registered_model_aliases" in point and "UPDATE" in point)
    mirrored = next(n for n, point in enumerate(points, 1) if n > alias and point.startswith("COMMIT"))
    assert swap < committed < alias < mirrored
    for at in (committed, committed + 1, mirrored, mirrored + 1):
        assert stage.kill(at, repair=False) == expected, f"killed before {points[at - 1]}"


def is_around_a_commit(points: list[str], at: int) -> bool:
    """Whether the point is a commit, or the first one after a commit."""
    return any(point.startswith("COMMIT") for point in points[max(at - 2, 0) : at])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("wins", "repair", "statements", "requested"),
    [
        (True, False, True, False),
        (True, True, False, False),
        (False, False, False, False),
        (False, True, False, False),
        (True, False, False, True),
        (False, False, False, True),
    ],
)
@pytest.mark.parametrize("new_ledger", BACKENDS, indirect=True)
def test_kill_9_at_every_commit_and_statement(
    new_ledger: Callable[[], str],
    tmp_path: Path,
    trained: Path,
    approve: Approve,
    wins: bool,
    repair: bool,
    statements: bool,
    requested: bool,
) -> None:
    """Before and after every commit; for the plain promotion also before every statement."""
    stage = Stage(tmp_path / "home", trained, approve, new_ledger, wins=wins, requested=requested)
    expected, points = stage.rehearse()
    assert expected[0] == ("promoted" if wins else "superseded")
    chosen = [at for at in range(1, len(points) + 1) if statements or is_around_a_commit(points, at)]
    log.info("%d of %d points", len(chosen), len(points))
    assert len(chosen) > 20
    for at in chosen:
        assert stage.kill(at, repair=repair) == expected, f"killed before {points[at - 1]}"
