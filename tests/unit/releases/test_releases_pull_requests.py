"""Production by pull request, and reverts that are opened once: through a small forge, and through a real Gitea."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, GateRefused, GitFailed
from components.core.release_publishing import observe_release, publish_champion
from components.core.settings import Settings
from pipelines.releases.branches import Change
from pipelines.releases.propose import propose_release
from pipelines.releases.revert import open_revert, revert_release

_servers = runpy.run_path(str(Path(__file__).with_name("forge_servers.py")))
TOKEN, Gitea, SmallForge = _servers["TOKEN"], _servers["Gitea"], _servers["SmallForge"]
STAGING, PROD = (f"infra/usecases/flights/envs/{environment}/release.yaml" for environment in ("staging", "prod"))
FORK = multiprocessing.get_context("fork")
Promote = Callable[..., str]


class Place:
    """Settings, a forge, and what a person does on its pages."""

    def __init__(self, settings: Settings, work: Path, forge: Any, git: Any) -> None:
        self.settings, self.work, self.forge, self.git = settings, work, forge, git

    def show(self, path: str, branch: str = "main") -> str:
        self.git(self.work, "fetch", "--quiet", "--prune", "origin")
        return str(self.git(self.work, "show", f"origin/{branch}:{path}"))

    def head(self, branch: str = "main") -> str:
        self.git(self.work, "fetch", "--quiet", "--prune", "origin")
        return str(self.git(self.work, "rev-parse", f"origin/{branch}"))

    @property
    def requests(self) -> list[Any]:
        if isinstance(self.forge, SmallForge):
            return list(self.forge.requests)
        found = self.forge.call("GET", f"/repos/{self.forge.owner}/{self.forge.name}/pulls?state=all&limit=50")
        return sorted(found, key=lambda each: int(each["number"]))

    @property
    def open(self) -> list[Any]:
        return [request for request in self.requests if request["state"] == "open"]

    def merge(self, number: int, how: str) -> None:
        """Merge on the forge's page: `merge` makes a merge commit, `squash` one of title and body."""
        if isinstance(self.forge, Gitea):
            path = f"/repos/{self.forge.owner}/{self.forge.name}/pulls/{number}/merge"
            # 405 as long as Gitea finds out whether the branch can be merged.
            for _ in range(40):
                with suppress(urllib.error.HTTPError):
                    self.forge.call("POST", path, {"Do": how})
                    return
                time.sleep(0.5)
            raise AssertionError(f"pull request {number} cannot be merged")
        request = self.forge.requests[number - 1]
        self.git(self.work, "fetch", "--quiet", "origin")
        self.git(self.work, "checkout", "--quiet", "-B", "main", "origin/main")
        branch = f"origin/{request['head']['ref']}"
        if how == "merge":
            self.git(self.work, "merge", "--quiet", "--no-ff", "-m", f"Merge pull request {number}", branch)
        else:
            self.git(self.work, "merge", "--quiet", "--squash", branch)
            self.git(self.work, "commit", "--quiet", "-m", f"{request['title']} (#{number})\n\n{request['body']}")
        self.git(self.work, "push", "--quiet", "origin", "main")
        request.update(state="closed", merged_at="2026-11-25T00:00:00Z")

    def close(self, number: int) -> None:
        if isinstance(self.forge, Gitea):
            path = f"/repos/{self.forge.owner}/{self.forge.name}/pulls/{number}"
            self.forge.call("PATCH", path, {"state": "closed"})
        else:
            self.forge.requests[number - 1]["state"] = "closed"


@pytest.fixture(params=["small", pytest.param("gitea", marks=pytest.mark.slow)])
def place(
    request: pytest.FixtureRequest, gitops: Settings, repository: Any, signing_key: Path, tmp_path: Path, git: Any
) -> Iterator[Place]:
    token = tmp_path / "token"
    common = {"git_signing_key": signing_key, "git_token": token}
    if request.param == "small":
        forge = SmallForge(repository.bare)
        token.write_text(TOKEN)
        yield Place(gitops.model_copy(update={**common, "forge_url": forge.url}), repository.work, forge, git)
        forge.shutdown()
        forge.server_close()
        return
    if not Gitea.ADDRESS:
        pytest.skip("no Gitea: DRIFTLINE_TEST_GITEA is not set")
    gitea = Gitea()
    token.write_text(gitea.token)
    git(repository.work, "remote", "set-url", "origin", gitea.push_url)
    git(repository.work, "push", "--quiet", "origin", "main")
    address = {"git_url": gitea.git_url, "forge_url": f"{gitea.root}/api/v1"}
    yield Place(gitops.model_copy(update={**common, **address}), repository.work, gitea, git)


def in_processes(count: int, work: Callable[[], Any]) -> list[Any]:
    """Do the same thing in several processes at once; return the answers."""
    receiver, sender = FORK.Pipe(duplex=False)
    barrier = FORK.Barrier(count)

    def call() -> None:
        barrier.wait()
        try:
            sender.send(work())
        except Exception as error:
            sender.send(repr(error))
            raise

    processes = [FORK.Process(target=call) for _ in range(count)]
    for process in processes:
        process.start()
    answers = [receiver.recv() for _ in processes if receiver.poll(120)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count, answers
    return answers


def test_production_gets_the_bytes_of_staging_by_one_pull_request(place: Place, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(place.settings, "flights")
    change = propose_release(place.settings, "flights", "staging", "prod")
    assert (change.state, change.version, change.replaced) == ("proposed", 1, None)
    assert change.branch == "release/prod/flights/1"
    assert place.show(PROD, change.branch) == place.show(STAGING)
    again = propose_release(place.settings, "flights", "staging", "prod")
    assert (again.commit, again.pull_request) == (change.commit, change.pull_request)
    (request,) = place.requests
    assert (request["title"], request["state"]) == ("Release flights 1 to prod", "open")
    for part in ("Nothing serves in prod yet", "Decision: **promote**", "| auc | 0.71 |", "xgboost", "not bit-exact"):
        assert part in request["body"]
    assert "better than \\| &lt;the> champion" in request["body"]


@pytest.mark.parametrize("how", [pytest.param("merge", marks=pytest.mark.slow), "squash"])
def test_what_was_merged_counts_as_released(place: Place, promoted: Promote, how: str) -> None:
    promoted(1, None)
    publish_champion(place.settings, "flights")
    propose_release(place.settings, "flights", "staging", "prod")
    place.merge(1, how)
    assert propose_release(place.settings, "flights", "staging", "prod").state == "unchanged"
    promoted(2, 1)
    publish_champion(place.settings, "flights")
    change = propose_release(place.settings, "flights", "staging", "prod")
    assert (change.version, change.replaced) == (2, 1)
    assert "| auc | 0.715 | 0.72 | +0.005 |" in place.requests[-1]["body"]
    assert "same held-out rows" in place.requests[-1]["body"]
    place.merge(2, how)
    revert = revert_release(place.settings, "flights", "prod", reason="too slow", propose=True)
    assert (revert.state, revert.branch, revert.version) == ("proposed", "revert/prod/flights/2", 1)
    place.merge(3, how)
    with pytest.raises(GateRefused, match="taken back"):
        propose_release(place.settings, "flights", "staging", "prod")
    assert len(place.requests) == 3


def test_many_propose_at_once_and_open_one(place: Place, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(place.settings, "flights")
    changes = in_processes(4, lambda: propose_release(place.settings, "flights", "staging", "prod"))
    assert {change.pull_request for change in changes} == {changes[0].pull_request}
    (request,) = place.open
    assert request["head"]["sha"] == place.head(changes[0].branch)


def test_an_aborted_canary_elsewhere_is_reverted_by_one_pull_request_and_a_no_is_an_answer(
    place: Place, promoted: Promote
) -> None:
    for version in (1, 2):
        promoted(version, version - 1 or None)
        publish_champion(place.settings, "flights")
        propose_release(place.settings, "flights", "staging", "prod")
        place.merge(version, "merge")

    def revert() -> Change:
        return open_revert(place.settings, "flights", "prod", 2, "error ratio 0.2 of the canary")

    changes = in_processes(3, revert)
    assert {(change.state, change.pull_request) for change in changes} == {("proposed", changes[0].pull_request)}
    (request,) = place.open
    assert "error ratio 0.2" in request["body"]
    assert place.show(PROD, "revert/prod/flights/2") == place.show(PROD, "main~2")
    place.close(request["number"])
    assert {revert().state, revert().state} == {"declined"}
    assert place.open == []


def test_an_aborted_canary_here_is_reverted_once_by_a_commit(place: Place, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(place.settings, "flights")
    before = place.show(STAGING)
    promoted(2, 1)
    publish_champion(place.settings, "flights")
    changes = in_processes(
        4, lambda: open_revert(place.settings, "flights", "staging", 2, "Driftline-Use-Case: x\nbad")
    )
    # Two that commit within one second make the same commit.
    assert {change.commit for change in changes} == {place.head()}
    assert "committed" in {change.state for change in changes}
    assert place.git(place.work, "rev-list", "--count", "origin/main") == "4"
    assert place.show(STAGING) == before
    message = place.git(place.work, "log", "-1", "--format=%B", "origin/main")
    assert message.startswith(
        "Revert flights from 2 to 1 in staging\n\nDriftline Use-Case: x bad\n\nThis reverts commit "
    )
    assert place.requests == []
    observed = observe_release(place.settings, "flights")
    assert observed is not None
    assert (observed.event, observed.champion) == ("reverted", 1)
    assert open_revert(place.settings, "flights", "staging", 2, "again").state == "unchanged"


def test_a_revert_goes_to_what_was_there_before_or_to_a_version(place: Place, promoted: Promote) -> None:
    for version in (1, 2, 3):
        promoted(version, version - 1 or None)
        publish_champion(place.settings, "flights")
    first = revert_release(place.settings, "flights", "staging")
    assert (first.replaced, first.version, first.state) == (3, 2, "committed")
    # Not to 3, which was taken back, although it was there just before.
    second = revert_release(place.settings, "flights", "staging")
    assert (second.replaced, second.version) == (2, 1)
    with pytest.raises(DataError, match="nothing was released there before"):
        revert_release(place.settings, "flights", "staging")
    with pytest.raises(DataError, match="no version 9"):
        revert_release(place.settings, "flights", "staging", to=9)
    third = revert_release(place.settings, "flights", "staging", to=2, reason="it was not the model")
    assert (third.replaced, third.version) == (1, 2)
    assert revert_release(place.settings, "flights", "staging", to=2).state == "unchanged"


def test_a_forge_that_refuses_or_is_away_is_said_and_repeating_is_safe(place: Place, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(place.settings, "flights")
    away = place.settings.model_copy(update={"forge_url": "http://127.0.0.1:9"})
    with pytest.raises(GitFailed, match="forge does not answer"):
        propose_release(away, "flights", "staging", "prod")
    wrong = place.settings.git_token.parent / "wrong"  # type: ignore[union-attr]
    wrong.write_text("nonsense")
    local = place.settings.git_url.startswith("/")
    with pytest.raises(GitFailed, match="HTTP 401" if local else "cannot be read"):
        propose_release(place.settings.model_copy(update={"git_token": wrong}), "flights", "staging", "prod")
    assert place.requests == []
    assert propose_release(place.settings, "flights", "staging", "prod").state == "proposed"
    assert len(place.requests) == 1


def test_without_a_forge_the_review_is_in_the_commit(
    gitops: Settings, repository: Any, promoted: Promote, git: Any
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    change = propose_release(gitops, "flights", "staging", "prod")
    message = git(repository.bare, "log", "-1", "--format=%B", change.branch)
    assert "Decision: **promote**" in message
    assert message.endswith("Driftline-Run: run-flights-1")
    assert (change.pull_request, change.body in message) == ("", True)


def test_unknown_environments_and_releases_are_refused(gitops: Settings, promoted: Promote) -> None:
    with pytest.raises(DataError, match="nothing of flights is released to staging"):
        propose_release(gitops, "flights", "staging", "prod")
    with pytest.raises(DataError, match="nothing of flights is released to prod"):
        revert_release(gitops, "flights", "prod")


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        pytest.param(("sync",), marks=pytest.mark.slow),
        pytest.param(("propose", "--from", "staging", "--to", "prod"), marks=pytest.mark.slow),
    ],
)
def test_the_command_line_answers_in_json(
    gitops: Settings, promoted: Promote, words: tuple[str, ...], tmp_path: Path
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    done = _command(gitops, *words, "--use-case", "flights", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = answer[0] if isinstance(answer, list) else answer
    assert (found["use_case"], found["version"]) == ("flights", 1)


def test_the_command_line_reverts(gitops: Settings, promoted: Promote) -> None:
    for version in (1, 2):
        promoted(version, version - 1 or None)
        publish_champion(gitops, "flights")
    done = _command(gitops, "revert", "--use-case", "flights", "--env", "staging")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("flights, staging: version 2 → 1: committed ")
    # All use cases without one, and the same of one.
    shown = _command(gitops, "show")
    assert shown.stdout.startswith("flights      staging  version 1, commit ")
    assert _command(gitops, "show", "--use-case", "flights").stdout == shown.stdout
    again = _command(gitops, "revert", "--use-case", "flights", "--env", "production")
    assert again.returncode == 2
    assert "allowed: local, staging, prod" in again.stderr


def _command(settings: Settings, *words: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "from pipelines.cli import main; main()"]
    environment = {**os.environ, **settings.environment()}
    return subprocess.run([*program, "release", *words], env=environment, capture_output=True, text=True, check=False)
