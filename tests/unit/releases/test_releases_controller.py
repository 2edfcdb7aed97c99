"""What the controller does with a real repository: follows it, commits what is missing, reverts what was aborted."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from components.core.errors import ConfigError, DataError, GitFailed
from components.core.ledger.champions import list_promotions, read_champion
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.serving import read_serving
from components.core.release import release_path
from components.core.release_publishing import publish_champion
from components.core.settings import Settings
from pipelines.controller.exposition import Exposition
from pipelines.controller.ledger_metrics import look_at_ledger
from pipelines.controller.releases import Releases, Reverts
from pipelines.controller.rollouts import Aborted

Promote = Callable[..., str]
FORK = multiprocessing.get_context("fork")
ABORTED = Aborted("flights", 2, "RolloutAborted: Metric errors assessed Failed")


def release_two(gitops: Settings, promoted: Promote) -> None:
    for version, expected in ((1, None), (2, 1)):
        assert promoted(version, expected) == "promoted"
        publish_champion(gitops, "flights")


def champion_of(settings: Settings, use_case: str) -> int | None:
    found = read_champion(open_ledger(settings.ledger_url), use_case)
    return found.version if found else None


def exported(exposition: Exposition, name: str) -> dict[tuple[tuple[str, str], ...], Any]:
    return {tuple(sorted(s.labels.items())): s.value for s in exposition.samples() if s.name == name}


def test_a_git_revert_is_followed_although_another_release_is_nonsense(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    release_two(gitops, promoted)
    promoted(1, None, "wind")
    publish_champion(gitops, "wind")
    repository.revert("HEAD~1")
    repository.write(str(release_path("wind", "staging")), "release: {useCase: wind}\n")
    with pytest.raises(ConfigError):
        Releases(gitops).look()
    assert champion_of(gitops, "flights") == 1
    assert champion_of(gitops, "wind") == 1
    exposition = Exposition()
    look_at_ledger(gitops, exposition)
    pinned = {dict(labels)["use_case"]: dict(labels) for labels in exported(exposition, "driftline_release_info")}
    assert pinned["flights"]["version"] == "1"
    assert pinned["flights"]["environment"] == "staging"
    assert exported(exposition, "driftline_promotions_total")[("outcome", "reverted"), ("use_case", "flights")] == 1


def test_a_release_dates_from_its_own_commit_not_from_the_newest_of_the_branch(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    release_two(gitops, promoted)
    name, exposition = "driftline_release_timestamp_seconds", Exposition()
    look_at_ledger(gitops, exposition)
    before = exported(exposition, name)
    repository.write("infra/README.md", "another word\n")
    Releases(gitops).look()
    served = read_serving(open_ledger(gitops.ledger_url), "flights", "staging")
    assert served is not None
    assert served.head == repository.head
    look_at_ledger(gitops, exposition)
    assert exported(exposition, name) == before != {}


def test_an_aborted_release_is_taken_back_once_by_many_controllers(
    gitops: Settings, repository: Any, promoted: Promote, git: Callable[..., str]
) -> None:
    release_two(gitops, promoted)
    gate = FORK.Barrier(4)

    def controller() -> None:
        reverts = Reverts(gitops, Exposition())
        gate.wait(60)
        for _ in range(3):
            reverts.open(ABORTED)

    processes = [FORK.Process(target=controller) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    subjects = repository.subjects()
    assert len(subjects) == 4, subjects  # the tree, two releases, one revert
    assert "RolloutAborted" in git(repository.bare, "log", "-1", "--format=%B", "main")
    repository.assert_linear()
    Releases(gitops).look()
    assert champion_of(gitops, "flights") == 1


def test_an_opened_revert_is_counted_and_one_without_an_earlier_release_only_logged(
    gitops: Settings, repository: Any, promoted: Promote, caplog: pytest.LogCaptureFixture
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    exposition = Exposition()
    reverts = Reverts(gitops, exposition)
    name, labels = "driftline_reverts_opened_total", (("environment", "staging"), ("use_case", "flights"))
    reverts.open(Aborted("flights", 1, "the first one"))
    assert "is not taken back" in caplog.text
    exposition.put("r", reverts.samples())
    assert exported(exposition, name) == {labels: 0}
    promoted(2, 1)
    publish_champion(gitops, "flights")
    for _ in range(2):
        reverts.open(ABORTED)
    exposition.put("r", reverts.samples())
    assert exported(exposition, name) == {labels: 1}
    assert len(repository.subjects()) == 4


def refuse(repository: Any, *, pushes: bool) -> None:
    """Let the server refuse every push, or take it again."""
    hook = repository.bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexit {int(pushes)}\n")
    hook.chmod(0o755)


def uncommitted(settings: Settings) -> Any:
    exposition = Exposition()
    look_at_ledger(settings, exposition)
    labels = (("environment", "staging"), ("use_case", "flights"))
    return exported(exposition, "driftline_release_uncommitted")[labels]


def test_a_promotion_whose_push_failed_is_committed_once_by_many_controllers(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    refuse(repository, pushes=True)
    with pytest.raises(GitFailed):
        publish_champion(gitops, "flights")
    with pytest.raises(GitFailed):
        Releases(gitops).look()
    assert (uncommitted(gitops), len(repository.subjects())) == (1, 2)
    refuse(repository, pushes=False)
    gate = FORK.Barrier(4)

    def controller() -> None:
        releases = Releases(gitops)
        gate.wait(60)
        for _ in range(3):
            releases.look()

    def step() -> None:
        gate.wait(60)
        publish_champion(gitops, "flights")

    processes = [FORK.Process(target=work) for work in (controller, controller, controller, step)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert repository.subjects() == ["The tree", "Release flights 1 to staging", "Release flights 2 to staging"]
    assert uncommitted(gitops) == 0


def test_the_first_release_of_a_use_case_is_committed_as_well(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    assert uncommitted(gitops) == 1
    Releases(gitops).look()
    assert repository.subjects()[-1] == "Release flights 1 to staging"
    assert uncommitted(gitops) == 0


def test_what_was_taken_back_or_withdrawn_stays_so(
    gitops: Settings, repository: Any, promoted: Promote, git: Callable[..., str]
) -> None:
    release_two(gitops, promoted)
    releases = Releases(gitops)
    head = repository.revert()
    for _ in range(3):
        releases.look()
    assert (repository.head, champion_of(gitops, "flights"), uncommitted(gitops)) == (head, 1, 0)
    repository.pull()
    git(repository.work, "rm", "--quiet", str(release_path("flights", "staging")))
    git(repository.work, "commit", "--quiet", "-m", "Serve no flights")
    git(repository.work, "push", "--quiet", "origin", "main")
    head = repository.head
    for _ in range(3):
        releases.look()
    Releases(gitops).look()  # of another process, which knows nothing of the first one
    assert (repository.head, champion_of(gitops, "flights"), uncommitted(gitops)) == (head, 1, 0)


def test_a_history_that_lost_the_release_is_not_mended_by_a_commit(
    gitops: Settings, repository: Any, promoted: Promote, git: Callable[..., str]
) -> None:
    """A force push took the release away: nobody knows why, so nothing is committed on top."""
    release_two(gitops, promoted)
    git(repository.bare, "update-ref", "refs/heads/main", "main~1")
    head = repository.head
    for work in (Releases(gitops).look, lambda: publish_champion(gitops, "flights")):
        with pytest.raises(DataError, match="was rewritten"):
            work()
    assert (repository.head, champion_of(gitops, "flights")) == (head, 2)


def test_without_a_key_it_is_said_once_and_measured_and_with_one_it_is_signed(
    gitops: Settings,
    repository: Any,
    promoted: Promote,
    daemon: str,
    signing_key: Path,
    git: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote = gitops.model_copy(update={"git_url": daemon, "git_signing_key": signing_key.with_name("missing")})
    releases = Releases(remote)
    for version in (1, 2):
        promoted(version, version - 1 or None)
        for _ in range(3):
            releases.look()
        assert caplog.text.count(f"version {version} of flights was promoted and is not in Git") == 1
        assert (uncommitted(remote), repository.subjects()) == (1, ["The tree"])
    Releases(remote.model_copy(update={"git_signing_key": signing_key})).look()
    assert repository.subjects()[-1] == "Release flights 2 to staging"
    assert "gpgsig" in git(repository.bare, "cat-file", "commit", "main")
    assert uncommitted(remote) == 0


@pytest.mark.slow
@run_with(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(["promote", "fail", "revert", "look", "look"]), min_size=3, max_size=7))
def test_whatever_happens_nothing_is_released_twice_or_after_it_was_taken_back(
    acts: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    gitops: Settings,
    repository: Any,
    promote_version: Callable[..., str],
) -> None:
    folder = tmp_path_factory.mktemp("example")
    mine = gitops.model_copy(update={"ledger_url": f"sqlite:///{folder}/ledger.db"})
    own = type(repository)(folder)
    mine = mine.model_copy(update={"git_url": str(own.bare)})
    migrate(mine.ledger_url)
    releases, version = Releases(mine), 0
    for act in (*acts, "look", "look"):
        released = [subject for subject in own.subjects() if subject.startswith("Release ")]
        if act in ("promote", "fail"):
            releases.look()
            version += 1
            promote_version(mine, version, champion_of(mine, "flights"))
            if act == "promote":
                publish_champion(mine, "flights")
        elif act == "revert" and len(released) > 1 and own.subjects()[-1].startswith("Release "):
            own.revert()
        else:
            releases.look()
    subjects = [subject for subject in own.subjects() if subject.startswith("Release ")]
    assert len(subjects) == len(set(subjects))
    reverted = {line.version for line in list_promotions(open_ledger(mine.ledger_url), "flights") if line.commit}
    champion = champion_of(mine, "flights")
    assert champion not in reverted
    if champion is not None:
        served = read_serving(open_ledger(mine.ledger_url), "flights", "staging")
        assert served is not None
        assert served.version == champion
        assert uncommitted(mine) == 0
