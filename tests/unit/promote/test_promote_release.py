"""The step `promote` with a repository of releases: the image is checked first, the ledger decides, Git follows."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.bundle import read_card
from components.core.digests import file_digest, json_digest
from components.core.errors import ConfigError, GateRefused, GitFailed
from components.core.ledger.champions import list_promotions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.ledger.runs import read_run
from components.core.mirror import repair_mirror
from components.core.release import parse_release
from components.core.settings import Settings
from components.core.tracking import champion_alias
from components.core.verdict import read_verdict
from components.promote.promote import promote

Approve = Callable[..., Any]
IMAGE = "registry.example/team/driftline-serve@sha256:" + "4" * 64
PATH = "infra/usecases/flights/envs/staging/release.yaml"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a bare repository with one commit."""
    bare, work = tmp_path / "gitops.git", tmp_path / "work"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(work)], check=True, capture_output=True)
    git(work, "checkout", "--quiet", "-B", "main")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "The tree")
    git(work, "push", "--quiet", "origin", "main")
    return bare


def revert(bare: Path) -> None:
    work = bare.parent / "work"
    git(work, "pull", "--quiet", "origin", "main")
    git(work, "revert", "--no-edit", "HEAD")
    git(work, "push", "--quiet", "origin", "main")


@pytest.fixture
def gitops(embedded: Settings, bare: Path) -> Settings:
    return embedded.model_copy(update={"git_url": str(bare), "git_environment": "staging"})


def test_what_is_promoted_is_committed_with_all_that_serves_it(gitops: Settings, bare: Path, approve: Approve) -> None:
    first = approve(gitops, 1, None)
    assert promote(first.settings, "flights", **first.arguments, serving_image=IMAGE) == "promoted"
    release = parse_release(git(bare, "show", f"main:{PATH}"), PATH)
    card, verdict = read_card(first.model), read_verdict(first.verdict)
    assert (release.use_case, release.model_version, release.model) == ("flights", 1, card.model)
    assert release.bento.tag == f"flights:1-{card.model[:12]}"
    assert release.bento.digest == file_digest(first.bento)
    assert file_digest(Path(release.bento.uri)) == release.bento.digest
    assert f"{release.image.repository}@{release.image.digest}" == IMAGE
    assert (release.verdict, release.run_id) == (json_digest(verdict.model_dump(mode="json")), "run-1")
    kept = read_release(open_ledger(gitops.ledger_url), "flights", 1)
    assert kept is not None
    assert kept.release == release
    # A retry changes nothing.
    head = git(bare, "rev-parse", "main")
    assert promote(first.settings, "flights", **first.arguments, serving_image=IMAGE) == "promoted"
    assert git(bare, "rev-parse", "main") == head


@pytest.mark.parametrize("image", ["", "registry.example/serve:latest", "registry.example/serve@sha256:12"])
def test_an_image_without_a_digest_promotes_nothing(gitops: Settings, approve: Approve, image: str) -> None:
    first = approve(gitops, 1, None)
    with pytest.raises(ConfigError, match="names none by digest"):
        promote(first.settings, "flights", **first.arguments, serving_image=image)
    assert read_champion(open_ledger(gitops.ledger_url), "flights") is None


def test_a_push_that_fails_leaves_the_model_promoted_and_a_retry_commits(
    gitops: Settings, bare: Path, approve: Approve
) -> None:
    hook = bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho denied >&2\nexit 1\n")
    hook.chmod(0o755)
    first = approve(gitops, 1, None)
    with pytest.raises(GitFailed, match="denied") as raised:
        promote(first.settings, "flights", **first.arguments, serving_image=IMAGE)
    assert "driftline release sync" in raised.value.next_step
    champion = read_champion(open_ledger(gitops.ledger_url), "flights")
    assert champion is not None
    assert (champion.version, champion_alias(gitops, "flights")) == (1, 1)
    hook.unlink()
    assert promote(first.settings, "flights", **first.arguments, serving_image=IMAGE) == "promoted"
    assert parse_release(git(bare, "show", f"main:{PATH}"), PATH).model_version == 1


def test_a_reverted_model_is_not_promoted_again_by_whichever_run(
    gitops: Settings, bare: Path, approve: Approve
) -> None:
    first, second = approve(gitops, 1, None), approve(gitops, 2, 1)
    for step in (first, second):
        promote(step.settings, "flights", **step.arguments, serving_image=IMAGE)
    revert(bare)
    head = git(bare, "rev-parse", "main")
    # The same step again: its outcome stands, nothing is committed.
    assert promote(second.settings, "flights", **second.arguments, serving_image=IMAGE) == "promoted"
    champion = read_champion(open_ledger(gitops.ledger_url), "flights")
    assert champion is not None
    assert champion.version == 1
    # Another run that takes the same version from the cache of `train`.
    other = approve(gitops, 2, 1, "run-other")
    with pytest.raises(GateRefused, match="taken back"):
        promote(other.settings, "flights", **other.arguments, serving_image=IMAGE)
    run = read_run(open_ledger(gitops.ledger_url), "run-other")
    assert run is not None
    assert (run.state, run.failed_step) == ("refused", "promote")
    assert git(bare, "rev-parse", "main") == head
    assert [line.outcome for line in list_promotions(open_ledger(gitops.ledger_url), "flights")] == [
        "promoted",
        "promoted",
        "reverted",
    ]
    repair_mirror(gitops)
    assert champion_alias(gitops, "flights") == 1
    # Another model than that one may still win.
    third = approve(gitops, 3, 1)
    assert promote(third.settings, "flights", **third.arguments, serving_image=IMAGE) == "promoted"
    assert parse_release(git(bare, "show", f"main:{PATH}"), PATH).model_version == 3


def test_a_revert_while_a_model_was_judged_supersedes_it(gitops: Settings, bare: Path, approve: Approve) -> None:
    steps = [approve(gitops, version, version - 1 or None) for version in (1, 2, 3)]
    for step in steps[:2]:
        promote(step.settings, "flights", **step.arguments, serving_image=IMAGE)
    revert(bare)
    judged = steps[2]
    assert promote(judged.settings, "flights", **judged.arguments, serving_image=IMAGE) == "superseded"
    assert parse_release(git(bare, "show", f"main:{PATH}"), PATH).model_version == 1


def test_without_a_repository_nothing_of_this_happens(embedded: Settings, approve: Approve) -> None:
    first = approve(embedded, 1, None)
    assert promote(first.settings, "flights", **first.arguments) == "promoted"
    assert read_release(open_ledger(embedded.ledger_url), "flights", 1) is None
