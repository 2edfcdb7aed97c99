"""What the controller does with a real repository: follows it, and takes an aborted release back once."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

from components.core.errors import ConfigError
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.serving import read_serving
from components.core.release import release_path
from components.core.release_publishing import publish_champion
from components.core.settings import Settings
from pipelines.controller.exposition import Exposition
from pipelines.controller.ledger_metrics import look_at_ledger
from pipelines.controller.releases import Reverts, observe_releases
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
        observe_releases(gitops)
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
    observe_releases(gitops)
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
    observe_releases(gitops)
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
