"""`driftline why` and releases: which commit has what a run made, where, and which commit took it back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core.ledger.engine import open_ledger
from components.core.ledger.requests import next_dispatch, read_request
from components.core.release import release_path
from components.core.release_publishing import observe_release, publish_champion
from components.core.settings import Settings
from pipelines.releases.trace import Traced, render_trace, trace_run

Promote = Callable[..., str]


def traced(settings: Settings, version: int) -> Traced:
    (found,) = trace_run(settings, f"run-flights-{version}")
    return found


def test_a_release_goes_from_the_ledger_into_git_and_back(gitops: Settings, repository: Any, promoted: Promote) -> None:
    promoted(1, None)
    waiting = traced(gitops, 1)
    assert (waiting.state, waiting.commit, waiting.named, waiting.environment) == ("not committed", "", None, "staging")
    assert "is not in Git, which names nothing: driftline release sync --use-case flights" in render_trace(waiting)
    first = publish_champion(gitops, "flights").commit
    assert traced(gitops, 1).model_dump(include={"state", "commit", "named", "ended_by"}) == {
        "state": "committed",
        "commit": first,
        "named": 1,
        "ended_by": "",
    }
    promoted(2, 1)
    second = publish_champion(gitops, "flights").commit
    replaced = traced(gitops, 1)
    assert (replaced.state, replaced.commit, replaced.ended_by, replaced.named) == ("committed", first, second, 2)
    expected = f"released to staging: version 1 by commit {first[:12]}, replaced by commit {second[:12]}"
    assert render_trace(replaced) == f"{expected}; Git names version 2"
    revert = repository.revert()
    # Nobody has looked yet: Git has gone back, the ledger has not.
    unseen = traced(gitops, 2)
    assert (unseen.state, unseen.commit, unseen.ended_by, unseen.named) == ("taken back", second, revert, 1)
    observe_release(gitops, "flights")
    repository.write("infra/README.md", "later\n")
    back = traced(gitops, 2)
    assert (back.state, back.commit, back.ended_by, back.named) == ("reverted", second, revert, 1)
    assert render_trace(back).endswith(
        f"by commit {second[:12]}, reverted by commit {revert[:12]}; Git names version 1"
    )
    assert (traced(gitops, 1).state, traced(gitops, 1).named, traced(gitops, 1).ended_by) == ("committed", 1, "")
    # The revert is reverted: it is what it was.
    repository.revert(revert)
    observe_release(gitops, "flights")
    assert (traced(gitops, 2).state, traced(gitops, 2).ended_by) == ("committed", "")


def test_a_release_that_was_withdrawn_was_taken_back(
    gitops: Settings, repository: Any, promoted: Promote, git: Callable[..., str]
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    repository.pull()
    git(repository.work, "rm", "--quiet", str(release_path("flights", "staging")))
    git(repository.work, "commit", "--quiet", "-m", "Serve no flights")
    git(repository.work, "push", "--quiet", "origin", "main")
    found = traced(gitops, 1)
    assert (found.state, found.ended_by, found.named) == ("taken back", repository.head, None)


def test_each_environment_that_has_it_is_named(gitops: Settings, repository: Any, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    text = repository.show(str(release_path("flights", "staging"))) + "\n"
    to_prod = repository.write(str(release_path("flights", "prod")), text)
    found = {each.environment: (each.state, each.commit) for each in trace_run(gitops, "run-flights-1")}
    assert found["prod"] == ("committed", to_prod)
    assert sorted(found) == ["prod", "staging"]


def test_a_run_that_promoted_nothing_has_no_release(gitops: Settings, promoted: Promote) -> None:
    assert trace_run(gitops, "nobody") == []
    promoted(1, None)
    assert promoted(2, None) == "superseded"
    assert trace_run(gitops, "run-flights-2") == []


def test_without_the_repository_the_ledger_says_what_it_knows(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    for version in (1, 2):
        promoted(version, version - 1 or None)
        publish_champion(gitops, "flights")
    revert = repository.revert()
    observe_release(gitops, "flights")
    away = gitops.model_copy(update={"git_url": "/nowhere/gitops.git"})
    assert (traced(away, 2).state, traced(away, 2).ended_by) == ("reverted", revert)
    assert (traced(away, 1).state, traced(away, 1).named) == ("committed", 1)
    assert "cannot be read" in render_trace(traced(away, 1))
    promoted(3, 1)
    assert traced(away, 3).state == "unknown"
    assert "DRIFTLINE_GIT_URL is not set" in traced(gitops.model_copy(update={"git_url": ""}), 3).error


def why(settings: Settings, *words: str) -> str:
    command = [str(Path(sys.executable).with_name("driftline")), "why", *words]
    environment = {**os.environ, **settings.environment()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_why_of_a_decision_names_the_release_that_came_of_it(
    gitops: Settings, repository: Any, promote_version: Callable[..., str], ask_for_retraining: Callable[..., str]
) -> None:
    """Of a run: tests/local/test_local_release.py."""
    ledger = open_ledger(gitops.ledger_url)
    request = ask_for_retraining(ledger, "flights")
    found = read_request(ledger, request)
    attempt = next_dispatch(ledger, request, now=datetime.now(UTC))
    assert found is not None
    assert attempt is not None
    assert "released to" not in why(gitops, found.decision_id)
    assert promote_version(gitops, 1, None, run_id=attempt.run_id) == "promoted"
    commit = publish_champion(gitops, "flights").commit
    expected = f"released to staging: version 1 by commit {commit[:12]}; Git names it\n"
    assert why(gitops, found.decision_id).endswith(expected)
    promote_version(gitops, 2, 1)
    publish_champion(gitops, "flights")
    repository.revert()
    revert = repository.revert("HEAD~2")
    observe_release(gitops, "flights")
    document = json.loads(why(gitops, found.decision_id, "--json"))
    assert document["run"] == attempt.run_id
    (told,) = document["releases"]
    assert (told["version"], told["environment"], told["state"]) == (1, "staging", "taken back")
    assert (told["commit"], told["ended_by"], told["named"]) == (commit, revert, None)
