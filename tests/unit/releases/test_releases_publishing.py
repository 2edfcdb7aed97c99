"""Promotion by commit against a real repository: once, signed, never forced, and never again after a revert."""

import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConfigError, DataError, GitFailed
from components.core.ledger.champions import list_promotions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.serving import read_serving
from components.core.release import parse_release, render_release
from components.core.release_publishing import observe_if_reachable, observe_release, publish_champion
from components.core.settings import Settings

PATH = "infra/usecases/flights/envs/staging/release.yaml"
Promote = Callable[..., str]


def champion(settings: Settings) -> int | None:
    found = read_champion(open_ledger(settings.ledger_url), "flights")
    return found.version if found else None


def serving(settings: Settings) -> tuple[int | None, str] | None:
    found = read_serving(open_ledger(settings.ledger_url), "flights", "staging")
    return (found.version, found.commit) if found else None


def events(settings: Settings) -> list[tuple[int, int | None, str]]:
    return [
        (line.version, line.previous_version, line.outcome)
        for line in list_promotions(open_ledger(settings.ledger_url), "flights")
    ]


def test_a_promotion_is_one_commit_that_says_what_it_is(
    gitops: Settings, repository: Any, promoted: Promote, git: Any
) -> None:
    promoted(1, None)
    published = publish_champion(gitops, "flights")
    assert (published.state, published.version, published.commit) == ("committed", 1, repository.head)
    assert parse_release(repository.show(PATH), PATH).model_version == 1
    assert git(repository.bare, "log", "-1", "--format=%B", "main").split("\n\n")[-1].splitlines() == [
        "Driftline-Use-Case: flights",
        "Driftline-Environment: staging",
        "Driftline-Model-Version: 1",
        "Driftline-Run: run-flights-1",
    ]
    assert git(repository.bare, "show", "--format=", "--name-only", "main") == PATH
    assert serving(gitops) == (1, repository.head)


def test_equal_content_makes_no_commit(gitops: Settings, repository: Any, promoted: Promote) -> None:
    promoted(1, None)
    first = publish_champion(gitops, "flights")
    repository.write("infra/README.md", "something else\n")
    head = repository.head
    again = publish_champion(gitops, "flights")
    assert (again.state, again.commit, repository.head) == ("unchanged", first.commit, head)


def test_without_a_champion_nothing_is_committed(gitops: Settings, repository: Any) -> None:
    head = repository.head
    assert publish_champion(gitops, "flights").state == "nothing"
    assert repository.head == head


def test_a_revert_makes_the_older_version_champion_and_the_newer_one_never_again(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    before = repository.show(PATH)
    promoted(2, 1)
    publish_champion(gitops, "flights")
    reverted = repository.revert()
    assert repository.show(PATH) == before
    # A retry of the promotion that comes before anybody looked.
    assert publish_champion(gitops, "flights").state == "taken back"
    assert repository.head == reverted
    observed = observe_release(gitops, "flights")
    assert observed is not None
    assert (observed.event, observed.champion, observed.replaced) == ("reverted", 1, 2)
    assert events(gitops) == [(1, None, "promoted"), (2, 1, "promoted"), (2, 1, "reverted")]
    assert serving(gitops) == (1, reverted)
    # And afterwards.
    assert publish_champion(gitops, "flights").state == "unchanged"
    assert observe_release(gitops, "flights").event == ""  # type: ignore[union-attr]
    assert repository.head == reverted
    assert len(events(gitops)) == 3
    found = read_champion(open_ledger(gitops.ledger_url), "flights")
    assert found is not None
    assert (found.run_id, found.bento_uri) == ("run-flights-1", "s3://models/bentos/flights-1.tar")
    promoted(3, 1)
    assert publish_champion(gitops, "flights").state == "committed"
    assert champion(gitops) == 3


def test_a_reverted_revert_reinstates(gitops: Settings, repository: Any, promoted: Promote) -> None:
    """A person says so in Git; nobody else can."""
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    publish_champion(gitops, "flights")
    repository.revert()
    observe_release(gitops, "flights")
    repository.revert()
    observed = observe_release(gitops, "flights")
    assert observed is not None
    assert (observed.event, observed.champion, observed.replaced) == ("reinstated", 2, 1)
    assert events(gitops)[-1] == (2, 1, "reinstated")
    repository.revert()
    assert observe_release(gitops, "flights").event == "reverted"  # type: ignore[union-attr]
    assert champion(gitops) == 1


def test_a_champion_that_is_not_committed_yet_is_not_demoted(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    repository.write("infra/README.md", "another commit\n")
    observed = observe_release(gitops, "flights")
    assert observed is not None
    assert (observed.event, observed.champion, observed.serving.version) == ("", 2, 1)
    assert publish_champion(gitops, "flights").state == "committed"


def test_a_withdrawn_release_is_recorded_and_the_champion_stays(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    repository.revert()
    observed = observe_release(gitops, "flights")
    assert observed is not None
    assert (observed.serving.version, observed.champion, observed.event) == (None, 1, "")
    assert publish_champion(gitops, "flights").state == "taken back"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("modelVersion: 1", "modelVersion: 7"), "release.modelVersion: 7"),
        (("run-flights-1", "run-flights-2"), "release.runId"),
        (("s3://models", "s3://attacker"), "release.bento.uri"),
    ],
)
def test_a_release_that_the_ledger_does_not_know_changes_nothing(
    gitops: Settings, repository: Any, promoted: Promote, change: tuple[str, str], key: str
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    publish_champion(gitops, "flights")
    text = repository.show(PATH, "main~1")
    assert change[0] in text
    repository.write(PATH, text.replace(*change))
    before = (champion(gitops), serving(gitops), events(gitops))
    with pytest.raises(DataError, match=key):
        observe_release(gitops, "flights")
    observe_if_reachable(gitops, "flights")
    assert (champion(gitops), serving(gitops), events(gitops)) == before


def test_nonsense_in_git_is_refused_by_name(gitops: Settings, repository: Any, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    repository.write(PATH, repository.show(PATH).replace("digest: ", "digset: "))
    head = repository.head
    with pytest.raises(ConfigError, match=r"release\.bento\.digset: unknown key, did you mean 'digest'"):
        observe_release(gitops, "flights")
    with pytest.raises(ConfigError, match="is no release"):
        publish_champion(gitops, "flights")
    assert (repository.head, champion(gitops)) == (head, 1)


def test_a_rewritten_history_is_refused_until_somebody_accepts_it(
    gitops: Settings, repository: Any, promoted: Promote, git: Any
) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    promoted(2, 1)
    publish_champion(gitops, "flights")
    git(repository.bare, "update-ref", "refs/heads/main", "main~1")
    with pytest.raises(DataError, match="was rewritten"):
        observe_release(gitops, "flights")
    assert champion(gitops) == 2
    observed = observe_release(gitops, "flights", rewritten=True)
    assert observed is not None
    assert (observed.serving.version, observed.champion) == (1, 1)


def test_a_remote_that_is_away_or_refuses_is_an_error_and_a_retry_finishes(
    gitops: Settings, repository: Any, promoted: Promote
) -> None:
    promoted(1, None)
    away = gitops.model_copy(update={"git_url": "/nowhere/gitops.git"})
    with pytest.raises(GitFailed, match="cannot be read"):
        publish_champion(away, "flights")
    observe_if_reachable(away, "flights")
    hook = repository.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    head = repository.head
    with pytest.raises(GitFailed, match="main is protected"):
        publish_champion(gitops, "flights")
    assert (repository.head, champion(gitops)) == (head, 1)
    hook.unlink()
    assert publish_champion(gitops, "flights").state == "committed"


def test_commits_are_signed_with_the_key_and_nothing_is_left_behind(
    gitops: Settings, repository: Any, promoted: Promote, signing_key: Path, tmp_path: Path, git: Any
) -> None:
    promoted(1, None)
    publish_champion(gitops.model_copy(update={"git_signing_key": signing_key}), "flights")
    home = tmp_path / "g"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    subprocess.run(
        ["gpg", "--batch", "--quiet", "--import", signing_key.with_name("public")], env=environment, check=True
    )
    try:
        told = subprocess.run(
            ["git", "-C", str(repository.bare), "verify-commit", "-v", "main"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        assert "Driftline Bot <bot@example.org>" in told.stderr
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
    assert git(repository.bare, "log", "-1", "--format=%an <%ae>", "main") == "Driftline Bot <bot@example.org>"
    time.sleep(0.5)
    listed = subprocess.run(
        ["pgrep", "-af", "gpg-agent --homedir .*dl-gpg-"], capture_output=True, text=True, check=False
    )
    # The agent of a call that has ended would have lost its home.
    homes = [word for line in listed.stdout.splitlines() for word in line.split() if "dl-gpg-" in word]
    assert [home for home in homes if not Path(home).exists()] == []


def test_unsigned_commits_are_for_local_paths_only(gitops: Settings, promoted: Promote, repository: Any) -> None:
    promoted(1, None)
    elsewhere = gitops.model_copy(update={"git_url": "https://git.example.org/team/gitops.git"})
    with pytest.raises(ConfigError, match="are signed, and there is no key"):
        publish_champion(elsewhere, "flights")


@pytest.mark.parametrize(
    "changes", [{"git_environment": "production"}, {"git_branch": "a b"}, {"git_url": "--upload-pack=x"}]
)
def test_wrong_settings_are_said(gitops: Settings, promoted: Promote, changes: dict[str, str]) -> None:
    promoted(1, None)
    with pytest.raises(ConfigError):
        publish_champion(gitops.model_copy(update=changes), "flights")


def test_equal_promotions_give_equal_bytes(gitops: Settings, repository: Any, promoted: Promote) -> None:
    promoted(1, None)
    publish_champion(gitops, "flights")
    text = repository.show(PATH) + "\n"
    assert text == render_release(parse_release(text, PATH))
