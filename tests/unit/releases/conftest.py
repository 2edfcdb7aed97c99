"""A real bare repository with an infra tree, real GPG keys, and versions that were promoted in a real ledger."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.core.bundle import ModelCard, release_of
from components.core.digests import json_digest, text_digest
from components.core.ledger.bentos import record_bento
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.releases import KeptRelease
from components.core.ledger.runs import claim_run
from components.core.release import Release, ReleasedBento, ServingImage
from components.core.settings import Settings
from components.core.verdict import Reason, Verdict

CASE = "flights"
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
IMAGE = ServingImage(repository="registry.example/team/driftline-serve", digest="sha256:" + "1" * 64)


def git(folder: Path, *words: str, check: bool = True) -> str:
    """Run git as a person does, with an identity of its own."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in PERSON}
    done = subprocess.run(
        ["git", "-C", str(folder), *words], env={**os.environ, **who}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


PERSON = (("NAME", "Ada"), ("EMAIL", "ada@example.org"))


def verdict_of(version: int, use_case: str = CASE) -> Verdict:
    """Return what the gate said of a version: it compared it with the one before."""

    def measured(area: float) -> dict[str, Any]:
        return {"metrics": {"auc": {"estimate": area, "low": area - 0.05, "high": area + 0.05}}}

    return Verdict(
        gate="evaluate",
        subject=text_digest(f"model {use_case} {version}"),
        decision="promote",
        reasons=[Reason(check="gain", passed=True, message="better than | <the> champion", measured=0.1, allowed=0.0)],
        evidence={
            "sentence": f"Version {version} is better.",
            "champion_version": version - 1 or None,
            "measurements": {
                "metric": "auc",
                "challenger": measured(0.7 + version / 100),
                "champion_model": measured(0.695 + version / 100) if version > 1 else None,
            },
        },
    )


def release_of_version(version: int, use_case: str = CASE) -> Release:
    verdict = verdict_of(version, use_case)
    return Release(
        use_case=use_case,
        model_version=version,
        model=verdict.subject,
        bento=ReleasedBento(
            tag=f"{use_case}:{version}-{verdict.subject[:12]}",
            digest=text_digest(f"bento {use_case} {version}"),
            uri=f"s3://models/bentos/{use_case}-{version}.tar",
        ),
        image=IMAGE,
        verdict=json_digest(verdict.model_dump(mode="json")),
        run_id=f"run-{use_case}-{version}",
    )


def kept(release: Release) -> KeptRelease:
    card = ModelCard(
        use_case=release.use_case,
        task="classification",
        version=release.model_version,
        mlflow_run="m",
        model=release.model,
        training_set="7" * 64,
        snapshot="5" * 64,
        registry="3" * 64,
        service="flights_v1",
        code="c0de",
        as_of=AS_OF,
        trainer={"kind": "xgboost"},
        device="cpu",
        seed=7,
        first=AS_OF,
        last=AS_OF,
        holdout_from=AS_OF,
        rows=1000,
        validation={"auc": 0.7},
        seconds=1.0,
        notes=["resumed, not bit-exact"],
    )
    verdict = verdict_of(release.model_version, release.use_case)
    return KeptRelease(release=release, verdict=verdict.model_dump_json(), card=card.model_dump_json())


def promote_version(
    settings: Settings, version: int, expected: int | None, use_case: str = CASE, *, run_id: str = ""
) -> str:
    """Promote a version in the ledger, as the step does, and keep its release."""
    ledger, release = open_ledger(settings.ledger_url), release_of_version(version, use_case)
    release = release.model_copy(update={"run_id": run_id or release.run_id})
    assert claim_run(ledger, release.run_id, release.run_id, "training", use_case)
    record_bento(ledger, release_of(use_case, version, release.model), release.bento.digest, release.bento.uri)
    candidate = Candidate(
        model=use_case,
        version=version,
        digest=release.model,
        bento_digest=release.bento.digest,
        bento_uri=release.bento.uri,
        run_id=release.run_id,
        verdict_digest=release.verdict,
        as_of=AS_OF,
    )
    return promote(ledger, candidate, expected, kept(release))


class Repository:
    """A bare repository, and a person's clone of it."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "gitops.git", folder / "work"
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(self.bare)], check=True)
        subprocess.run(["git", "clone", "--quiet", str(self.bare), str(self.work)], check=True, capture_output=True)
        git(self.work, "checkout", "--quiet", "-B", "main")
        readme = self.work / "infra" / "README.md"
        readme.parent.mkdir(parents=True)
        readme.write_text("the tree that Git owns\n")
        git(self.work, "add", ".")
        git(self.work, "commit", "--quiet", "-m", "The tree")
        git(self.work, "push", "--quiet", "origin", "main")

    @property
    def head(self) -> str:
        return git(self.bare, "rev-parse", "main")

    def pull(self) -> Path:
        git(self.work, "pull", "--quiet", "--ff-only", "origin", "main")
        return self.work

    def revert(self, commit: str = "HEAD") -> str:
        """Do what an on-call does: `git revert`, `git push`."""
        self.pull()
        git(self.work, "revert", "--no-edit", commit)
        git(self.work, "push", "--quiet", "origin", "main")
        return self.head

    def write(self, path: str, text: str, message: str = "By hand") -> str:
        file = self.pull() / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        git(self.work, "add", path)
        git(self.work, "commit", "--quiet", "-m", message)
        git(self.work, "push", "--quiet", "origin", "main")
        return self.head

    def show(self, path: str, commit: str = "main") -> str:
        return git(self.bare, "show", f"{commit}:{path}")

    def subjects(self, branch: str = "main") -> list[str]:
        """Return the subjects of a branch, oldest first."""
        return git(self.bare, "log", "--reverse", "--format=%s", branch).splitlines()

    def assert_linear(self) -> None:
        assert git(self.bare, "rev-list", "--min-parents=2", "main") == ""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def gitops(settings: Settings, repository: Repository) -> Settings:
    """Return settings with an empty ledger and the bare repository, whose commits need no signature."""
    migrate(settings.ledger_url)
    return settings.model_copy(update={"git_url": str(repository.bare), "git_environment": "staging"})


@pytest.fixture
def promoted(gitops: Settings) -> Callable[..., str]:
    """Return a function that promotes a version in the ledger: (version, champion compared with, use case)."""

    def promoted(version: int, expected: int | None, use_case: str = CASE) -> str:
        return promote_version(gitops, version, expected, use_case)

    return promoted


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield an armoured private key without passphrase; its public half is `public` beside it."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    folder = tmp_path_factory.mktemp("keys")
    try:
        call: Callable[..., Any] = lambda *words: subprocess.run(  # noqa: E731
            ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *words],
            check=True,
            capture_output=True,
        )
        call("--quick-generate-key", "Driftline Bot <bot@example.org>", "ed25519", "sign", "never")
        (folder / "signing-key").write_bytes(call("--armor", "--export-secret-keys").stdout)
        (folder / "public").write_bytes(call("--armor", "--export").stdout)
        yield folder / "signing-key"
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(name="git")
def git_fixture() -> Callable[..., str]:
    """Return git as a person runs it: (folder, words)."""
    return git


@pytest.fixture
def daemon(repository: Any) -> Iterator[str]:
    """Yield the address of the bare repository at a real git server, where everybody may push."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", "--enable=receive-pack", "--reuseaddr", "--listen=127.0.0.1"]
    process = subprocess.Popen(
        [*command, f"--port={port}", f"--base-path={repository.bare.parent}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"git://127.0.0.1:{port}/{repository.bare.name}"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)


@pytest.fixture(name="promote_version")
def promote_version_fixture() -> Callable[..., str]:
    """Return a function that promotes a version in any ledger: (settings, version, compared with, use case, run)."""
    return promote_version
