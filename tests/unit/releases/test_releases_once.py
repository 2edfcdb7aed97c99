"""Promotion by commit, killed before and after each git command, and by many at once: the same end as without."""

import multiprocessing
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DriftlineError
from components.core.ledger.champions import list_promotions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.serving import read_serving
from components.core.release import parse_release, release_path
from components.core.release_publishing import observe_release, publish_champion
from components.core.settings import Settings
from pipelines.controller.releases import Releases
from pipelines.releases.revert import open_revert

FORK = multiprocessing.get_context("fork")
Promote = Callable[..., str]

GIT = """#!/bin/sh
n=$(($(cat "{count}") + 1)); echo $n > "{count}"
if [ "$n" = "{before}" ]; then kill -9 $PPID; exit 1; fi
"{git}" "$@"; code=$?
if [ "$n" = "{after}" ]; then kill -9 $PPID; fi
exit $code
"""


def killed_at(folder: Path, work: Callable[[], Any], *, before: int = 0, after: int = 0) -> tuple[int | None, int]:
    """Do work in a process that is killed before or after its n-th git command; return exit code and commands run."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    count = folder / "count"
    count.write_text("0")
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (programs / "git").write_text(GIT.format(count=count, before=before, after=after, git=real))
    (programs / "git").chmod(0o755)

    def call() -> None:
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        tempfile.tempdir = str(folder)  # a killed process cleans nothing up
        work()

    process = FORK.Process(target=call)
    process.start()
    process.join(120)
    return process.exitcode, int(count.read_text())


def release_commits(repository: Any, git: Any) -> Counter[str]:
    """Count the commits of each release."""
    return Counter(subject for subject in repository.subjects() if subject.startswith("Release "))


def end_state(settings: Settings, repository: Any, git: Any) -> Any:
    ledger = open_ledger(settings.ledger_url)
    champion, served = read_champion(ledger, "flights"), read_serving(ledger, "flights", "staging")
    return (
        champion.version if champion else None,
        served.version if served else None,
        repository.show("infra/usecases/flights/envs/staging/release.yaml"),
        release_commits(repository, git),
        [(line.version, line.outcome) for line in list_promotions(ledger, "flights")],
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_git_command_and_a_retry_give_the_same_end(
    gitops: Settings, repository: Any, promoted: Promote, git: Any, tmp_path: Path, when: str
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    bare, ledger = repository.bare, Path(gitops.ledger_url.removeprefix("sqlite:///"))
    promoted(2, 1)

    def restore() -> None:
        """Bring back the moment after the swap of version 2."""
        git(bare, "update-ref", "refs/heads/main", start)
        ledger.write_bytes(content)
        for side in ("-wal", "-shm"):
            ledger.with_name(ledger.name + side).unlink(missing_ok=True)

    start, content = repository.head, _checkpointed(gitops, ledger)
    code, commands = killed_at(tmp_path, lambda: publish_champion(gitops, "flights"))
    assert code == 0
    expected = end_state(gitops, repository, git)
    assert expected[:2] == (2, 2)
    assert expected[3] == {"Release flights 1 to staging": 1, "Release flights 2 to staging": 1}
    outcomes = set()
    for point in range(1, commands + 1):
        restore()
        code, _ = killed_at(tmp_path, lambda: publish_champion(gitops, "flights"), **{when: point})
        assert code == -signal.SIGKILL
        published = publish_champion(gitops, "flights")
        outcomes.add(published.state)
        assert end_state(gitops, repository, git) == expected
        repository.assert_linear()
    # Some kills came before the push, some after it.
    assert outcomes == {"committed", "unchanged"}


def _checkpointed(settings: Settings, ledger: Path) -> bytes:
    with open_ledger(settings.ledger_url).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return ledger.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_controller_that_is_killed_while_it_commits_and_another_one_commit_once(
    gitops: Settings, repository: Any, promoted: Promote, git: Any, tmp_path: Path, when: str
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)  # and the step could not push
    bare, ledger = repository.bare, Path(gitops.ledger_url.removeprefix("sqlite:///"))
    start, content = repository.head, _checkpointed(gitops, ledger)
    code, commands = killed_at(tmp_path, lambda: Releases(gitops).look())
    assert code == 0
    expected = end_state(gitops, repository, git)
    assert expected[:2] == (2, 2)
    for point in range(1, commands + 1):
        git(bare, "update-ref", "refs/heads/main", start)
        ledger.write_bytes(content)
        for side in ("-wal", "-shm"):
            ledger.with_name(ledger.name + side).unlink(missing_ok=True)
        code, _ = killed_at(tmp_path, lambda: Releases(gitops).look(), **{when: point})
        assert code == -signal.SIGKILL
        Releases(gitops).look()
        assert end_state(gitops, repository, git) == expected
        repository.assert_linear()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_revert_and_a_retry_revert_once(
    gitops: Settings, repository: Any, promoted: Promote, git: Any, tmp_path: Path, when: str
) -> None:
    for version in (1, 2):
        promoted(version, version - 1 or None)
        publish_champion(gitops, "flights")
    start = repository.head
    code, commands = killed_at(tmp_path, lambda: open_revert(gitops, "flights", "staging", 2, "aborted"))
    assert code == 0
    for point in range(1, commands + 1):
        git(repository.bare, "update-ref", "refs/heads/main", start)
        code, _ = killed_at(tmp_path, lambda: open_revert(gitops, "flights", "staging", 2, "aborted"), **{when: point})
        assert code == -signal.SIGKILL
        open_revert(gitops, "flights", "staging", 2, "aborted")
        assert repository.subjects()[-1] == "Revert flights from 2 to 1 in staging"
        assert git(repository.bare, "rev-list", "--count", f"{start}..main") == "1"


def work_of(settings: Settings, promoted: Promote, use_case: str, versions: range, seed: int) -> None:
    """Promote versions one after the other and publish each, at random moments, as runs of one use case would."""
    chance = random.Random(seed)  # noqa: S311
    for version in versions:
        time.sleep(chance.uniform(0, 0.2))
        promoted(version, version - 1 or None, use_case)
        publish_champion(settings, use_case)


def disturb(settings: Settings, use_cases: list[str], seconds: float, seed: int) -> None:
    """Do what syncs, monitors and retries do meanwhile."""
    chance = random.Random(seed)  # noqa: S311
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        case = chance.choice(use_cases)
        chance.choice([publish_champion, observe_release])(settings, case)


def run_all(jobs: list[Callable[[], None]]) -> None:
    processes = [FORK.Process(target=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(400)
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.mark.parametrize(
    ("cases", "versions", "seed"),
    [(2, 2, 0), *(pytest.param(4, 4, seed, marks=pytest.mark.slow) for seed in (1, 2, 3))],
)
def test_many_promote_at_once_and_nothing_is_lost_or_forced(
    gitops: Settings, repository: Any, promoted: Promote, git: Any, cases: int, versions: int, seed: int
) -> None:
    names = ["flights", "wind", "rain", "snow"][:cases]
    run_all(
        [
            *(lambda c=name, s=n: work_of(gitops, promoted, c, range(1, versions + 1), seed * 100 + s)  # type: ignore[misc]
              for n, name in enumerate(names)),
            *(lambda s=n: disturb(gitops, names, versions, seed * 100 + 50 + s) for n in range(cases // 2)),  # type: ignore[misc]
        ]
    )  # fmt: skip
    repository.assert_linear()
    for name in names:
        text = repository.show(str(release_path(name, "staging")))
        assert parse_release(text, name, use_case=name).model_version == versions
    # Each version was champion when its promoter published it, so each has its commit, once.
    assert release_commits(repository, git) == {
        f"Release {name} {version} to staging": 1 for name in names for version in range(1, versions + 1)
    }
    assert repository.show("infra/README.md") == "the tree that Git owns"
    for name in names:
        observe_release(gitops, name)
        served = read_serving(open_ledger(gitops.ledger_url), name, "staging")
        assert served is not None
        assert served.version == versions


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_promotions_and_reverts_of_one_use_case_at_once(
    gitops: Settings, repository: Any, promoted: Promote, git: Any, seed: int
) -> None:
    """Whatever the order: no version is released twice, and in the end Git names the champion."""
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    publish_champion(gitops, "flights")

    def promote_next(version: int) -> None:
        observe_release(gitops, "flights")
        champion = read_champion(open_ledger(gitops.ledger_url), "flights")
        promoted(version, champion.version if champion else None)
        if version % 2:  # the controllers commit the others
            publish_champion(gitops, "flights")

    def control() -> None:
        controller = Releases(gitops)
        for _ in range(6):
            controller.look()

    def revert() -> None:
        time.sleep(random.Random(seed).uniform(0, 0.5))  # noqa: S311
        open_revert(gitops, "flights", "staging", 2, "aborted")

    run_all([revert, revert, control, control, *(lambda v=v: promote_next(v) for v in (3, 4, 5))])  # type: ignore[misc]
    observe_release(gitops, "flights")
    publish_champion(gitops, "flights")
    observed = observe_release(gitops, "flights")
    assert observed is not None
    assert observed.champion == observed.serving.version
    assert set(release_commits(repository, git).values()) == {1}
    repository.assert_linear()
    reverted = {line.version for line in list_promotions(open_ledger(gitops.ledger_url), "flights") if line.commit}
    assert reverted <= {2}
    assert observed.champion not in reverted


def test_a_git_server_that_goes_away_and_comes_back(
    gitops: Settings, repository: Any, promoted: Promote, signing_key: Path, daemon: str
) -> None:
    remote = gitops.model_copy(update={"git_url": daemon, "git_signing_key": signing_key})
    promoted(1, None)
    assert publish_champion(remote, "flights").state == "committed"
    promoted(2, 1)
    wrong = remote.model_copy(update={"git_url": daemon.replace("git:", "http:")})
    with pytest.raises(DriftlineError, match="cannot be read"):
        publish_champion(wrong, "flights")
    assert publish_champion(remote, "flights").state == "committed"
    repository.revert()
    observed = observe_release(remote, "flights")
    assert observed is not None
    assert observed.event == "reverted"
