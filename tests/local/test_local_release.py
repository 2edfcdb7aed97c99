"""Real pipelines and a repository that says what serves: after a `git revert` all compare with the older model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from components.core.ledger.champions import list_promotions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.serving import read_serving

ROOT = Path(__file__).parents[2]
CASE = "wind"
RELEASE = f"infra/usecases/{CASE}/envs/staging/release.yaml"
SERVE = "registry.example/team/driftline-serve@sha256:" + "2" * 64
WEAK = ["--param", "train.trainer.rounds=60"]
FIRST, JUDGED = "2013-07-01", "2013-08-02"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


class Place:
    """A home, a bare repository, and the command line between them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.bare, self.work = (folder / name for name in ("", "home", "gitops.git", "work"))
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(self.bare)], check=True)
        subprocess.run(["git", "clone", "--quiet", str(self.bare), str(self.work)], check=True, capture_output=True)
        self.git("checkout", "--quiet", "-B", "main")
        self.git("commit", "--quiet", "--allow-empty", "-m", "The tree")
        self.git("push", "--quiet", "origin", "main")
        images = {"cpu": SERVE.replace("serve", "cpu"), "serve": SERVE}
        (folder / "images.json").write_text(json.dumps(images))

    def git(self, *words: str) -> str:
        who = {f"GIT_{role}_{what}": "ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command = ["git", "-C", str(self.work), *words]
        return subprocess.run(
            command, env={**os.environ, **who}, check=True, capture_output=True, text=True
        ).stdout.strip()

    @property
    def ledger(self) -> Any:
        return open_ledger(f"sqlite:///{self.home}/ledger.db")

    def run(self, *words: str, code: int = 0, **changes: str) -> str:
        environment = {
            **os.environ,
            "DRIFTLINE_HOME": str(self.home),
            "DRIFTLINE_FEATURE_REPO": str(ROOT / "feature_repo"),
            "DRIFTLINE_GIT_URL": str(self.bare),
            "DRIFTLINE_GIT_ENVIRONMENT": "staging",
            **changes,
        }
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def train(self, *words: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("run", "training", "--use-case", CASE, "--json", *words, code=code))
        return found

    def serve_the_first(self) -> None:
        """Take the second version back as an on-call does, unless that was done."""
        if self.release()["modelVersion"] == 2:
            self.git("revert", "--no-edit", "HEAD")
            self.git("push", "--quiet", "origin", "main")
        assert self.release()["modelVersion"] == 1

    def release(self) -> dict[str, Any]:
        """Pull as a person does and return what Git names."""
        self.git("pull", "--quiet", "--ff-only", "origin", "main")
        found: dict[str, Any] = yaml.safe_load((self.work / RELEASE).read_text())["release"]
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Return a place where a weak first model and a better second one were trained, promoted and committed."""
    found = Place(tmp_path_factory.mktemp("release"))
    first = found.train(*WEAK)
    assert first["state"] == "succeeded"
    assert found.release()["modelVersion"] == 1
    second = found.train()
    assert second["state"] == "succeeded"
    yield found
    ours = str(found.home)
    alive = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DRIFTLINE_HOME") == ours and process.status() != "zombie":
                alive.append(process.pid)
        except psutil.Error:
            continue
    assert alive == []


def test_each_promotion_is_a_commit_that_the_ledger_agrees_with(place: Place) -> None:
    release, champion = place.release(), read_champion(place.ledger, CASE)
    assert champion is not None
    assert release["modelVersion"] == champion.version == 2
    assert (release["model"], release["runId"]) == (champion.digest, champion.run_id)
    assert (release["bento"]["digest"], release["bento"]["uri"]) == (champion.bento_digest, champion.bento_uri)
    assert f"{release['image']['repository']}@{release['image']['digest']}" == SERVE
    subjects = place.git("log", "--reverse", "--format=%s").splitlines()
    assert subjects == ["The tree", f"Release {CASE} 1 to staging", f"Release {CASE} 2 to staging"]
    served = read_serving(place.ledger, CASE, "staging")
    assert served is not None
    assert served.commit == place.git("rev-parse", "HEAD")


def test_after_a_git_revert_the_monitor_watches_the_older_version(place: Place) -> None:
    place.serve_the_first()
    # Nobody tells the ledger: the next pipeline looks.
    place.run("run", "scoring", "--use-case", CASE, "--from", FIRST, "--to", JUDGED)
    champion = read_champion(place.ledger, CASE)
    assert champion is not None
    assert champion.version == 1
    last = list_promotions(place.ledger, CASE)[-1]
    assert (last.version, last.previous_version, last.outcome) == (2, 1, "reverted")
    assert last.commit == place.git("rev-parse", "HEAD")
    shown = json.loads(
        place.run("run", "monitoring", "--use-case", CASE, "--as-of", JUDGED, "--no-dispatch", "--json",
                  "--param", "monitor.report_rows=0")
    )  # fmt: skip
    assert shown["decision"]["version"] == 1


def test_the_gate_compares_with_it_and_the_reverted_model_does_not_come_back(place: Place) -> None:
    """The same data and settings give the same model again: the gate likes it, promotion does not."""
    head = place.git("rev-parse", "HEAD")
    again = place.train(code=3)
    assert again["verdicts"]["evaluate"]["decision"] == "promote"
    assert again["verdicts"]["evaluate"]["evidence"]["champion_version"] == 1
    assert again["state"] == "refused"
    assert "taken back" in json.dumps(again)
    champion = read_champion(place.ledger, CASE)
    assert champion is not None
    assert champion.version == 1
    place.release()
    assert place.git("rev-parse", "HEAD") == head


def test_a_push_that_fails_leaves_the_champion_and_sync_finishes(place: Place) -> None:
    place.serve_the_first()
    hook = place.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    # Another learning rate: it stops early, so another number of rounds would give the reverted model again.
    document = place.train("--param", "train.trainer.learning_rate=0.06", code=1)
    assert document["state"] == "failed"
    assert "main is protected" in json.dumps(document)
    champion = read_champion(place.ledger, CASE)
    assert champion is not None
    assert champion.version > 2
    assert place.release()["modelVersion"] == 1
    place.run("release", "sync", "--use-case", CASE, code=1)
    hook.unlink()
    place.run("release", "sync", "--use-case", CASE)
    assert place.release()["modelVersion"] == champion.version
    assert "unchanged" in place.run("release", "sync", "--use-case", CASE)
    shown = json.loads(place.run("release", "show", "--use-case", CASE, "--json"))
    assert [(each["environment"], each["version"], each["champion"]) for each in shown] == [
        ("staging", champion.version, champion.version)
    ]
    why = place.run("why", champion.run_id)
    assert "main is protected" in why
    commit = place.git("log", "-1", "--format=%H", "--", RELEASE)
    assert f"released to staging: version {champion.version} by commit {commit[:12]}; Git names it" in why
    (told,) = json.loads(place.run("why", champion.run_id, "--json"))["releases"]
    assert (told["state"], told["commit"], told["named"]) == ("committed", commit, champion.version)


def test_without_a_locked_image_nothing_is_trained(place: Place) -> None:
    before = len(list_promotions(place.ledger, CASE))
    (place.folder / "images.json").rename(place.folder / "elsewhere.json")
    place.run("run", "training", "--use-case", CASE, code=2)
    (place.folder / "elsewhere.json").rename(place.folder / "images.json")
    assert len(list_promotions(place.ledger, CASE)) == before


def test_a_remote_that_is_away_does_not_stop_the_monitor(place: Place) -> None:
    place.run(
        *[
            "run",
            "monitoring",
            "--use-case",
            CASE,
            "--as-of",
            JUDGED,
            "--no-dispatch",
            "--param",
            "monitor.report_rows=0",
        ],
        DRIFTLINE_GIT_URL="/nowhere/gitops.git",
    )
