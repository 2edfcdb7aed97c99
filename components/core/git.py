"""The repository of releases, through the git command: a bare clone, read and written without a work tree.

A clone holds commits, trees and small files; others are fetched when they are read. Its history is whole, since it
says what was released before. Nothing is ever forced: a push succeeds only if the branch is still where the commit was
made on.
"""

import base64
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from components.core.errors import ConfigError, GitFailed
from components.core.git_signing import Committer
from components.core.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 120
SMALL = "--filter=blob:limit=20k"
"""Releases are small, compiled pipelines are not; a server that cannot filter sends everything."""
PATIENCE = (0.5, 1.0, 2.0)
"""Seconds between attempts to reach a remote that does not answer."""


@dataclass(frozen=True)
class Clone:
    """A bare clone in a temporary folder."""

    folder: Path
    url: str
    branch: str
    environment: Mapping[str, str]


@contextmanager
def clone(settings: Settings) -> Iterator[Clone]:
    """Yield an empty clone that knows its remote; `fetch` fills it. It is gone after the block.

    Raises ConfigError for a missing or unusable address, GitFailed without git.
    """
    check_address(settings)
    folder = Path(tempfile.mkdtemp(prefix="driftline-git-"))
    try:
        made = Clone(folder, settings.git_url, settings.git_branch, _environment(settings, folder))
        run(made, "init", "--quiet", "--bare", "--initial-branch=fetched", ".")
        run(made, "config", "remote.origin.url", settings.git_url)
        run(made, "config", "remote.origin.promisor", "true")
        run(made, "config", "remote.origin.partialclonefilter", "blob:none")
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_address(settings: Settings) -> None:
    """Raise ConfigError unless a repository and a branch are named; a password has no place in an address."""
    url, branch = settings.git_url, settings.git_branch
    if not url:
        raise ConfigError("no repository of releases is named", next_step="set DRIFTLINE_GIT_URL (docs/releases.md)")
    if url.startswith("-") or urlsplit(url).password:
        raise ConfigError(
            "DRIFTLINE_GIT_URL is not the address of a repository",
            measured="an address with a password" if urlsplit(url).password else url,
            allowed="https://..., ssh://..., git@host:path or a path; tokens and keys are files of their own",
        )
    if not branch or branch.startswith("-") or any(character in branch for character in " ~^:?*[\\"):
        raise ConfigError("DRIFTLINE_GIT_BRANCH is no branch", measured=repr(branch), allowed="such as main")


def fetch(made: Clone, branch: str = "") -> str:
    """Bring the newest commits of a branch (default: the one of releases) and return its head, '' if there is none.

    Raises GitFailed when the remote does not answer.
    """
    name = branch or made.branch
    head = remote_head(made, name)
    if not head:
        return ""
    _read_remote(
        made,
        *("fetch", "--quiet", "--no-tags", SMALL, "--no-write-fetch-head"),
        *("origin", f"+refs/heads/{name}:refs/remotes/origin/{name}"),
    )
    return run(made, "rev-parse", "--verify", f"refs/remotes/origin/{name}").strip()


def remote_head(made: Clone, branch: str = "") -> str:
    """Return the commit that a branch of the remote points to, '' if there is no such branch. Raises GitFailed."""
    reference = f"refs/heads/{branch or made.branch}"
    listed = _read_remote(made, "ls-remote", "origin", reference).decode()
    found = [line.split("\t") for line in listed.splitlines()]
    return next((commit for commit, name in found if name == reference), "")


def _read_remote(made: Clone, *words: str) -> bytes:
    """Run a git command that reads the remote, again while it does not answer, and return its output.

    Raises GitFailed after the last attempt.
    """
    for pause in PATIENCE:
        done = _git(made, *words)
        if done.returncode == 0:
            return done.stdout
        log.info("%s does not answer, again in %.1f s: %s", made.url, pause, done.stderr[-200:])
        time.sleep(pause)
    done = _git(made, *words)
    if done.returncode:
        raise _failed(f"{made.url} cannot be read", done)
    return done.stdout


def read_text(made: Clone, commit: str, path: PurePosixPath) -> str | None:
    """Return a file as a commit has it, None when it has none. Raises GitFailed."""
    if not run(made, "ls-tree", commit, "--", str(path)).strip():
        return None
    return run(made, "cat-file", "blob", f"{commit}:{path}")


def read_texts(made: Clone, commits: Sequence[str], path: PurePosixPath) -> list[str | None]:
    """Return a file as each of some commits has it, by one call (format: git-cat-file(1), `--batch`)."""
    done = _git(made, "cat-file", "--batch", given="".join(f"{commit}:{path}\n" for commit in commits))
    if done.returncode:
        raise _failed("git cat-file failed", done)
    rest, texts = done.stdout, list[str | None]()
    for _ in commits:
        header, _, rest = rest.partition(b"\n")
        size = header.rpartition(b" ")[2]
        if not size.isdigit():
            texts.append(None)  # missing
            continue
        texts.append(rest[: int(size)].decode("utf-8", "replace"))
        rest = rest[int(size) + 1 :]
    return texts


def history(made: Clone, commit: str, path: PurePosixPath) -> list[str]:
    """Return the commits that changed a file, newest first, also those that came by a merge."""
    return run(made, "log", "--full-history", "--format=%H", commit, "--", str(path)).split()


def messages(made: Clone, commit: str, containing: str) -> list[tuple[str, str]]:
    """Return hash and message of each commit up to `commit` whose message holds a text, newest first."""
    found = run(made, "log", "--fixed-strings", f"--grep={containing}", "--format=%H%n%B%x00", commit)
    entries = [entry.strip("\n").partition("\n") for entry in found.split("\0")]
    return [(commit, message) for commit, _, message in entries if commit]


def contains(made: Clone, head: str, commit: str) -> bool:
    """Return whether a commit is `head` or an ancestor of it; a commit that is not here is none."""
    return _git(made, "merge-base", "--is-ancestor", commit, head).returncode == 0


def make_commit(made: Clone, by: Committer, parent: str, path: PurePosixPath, text: str | None, message: str) -> str:
    """Make a commit on `parent` that changes one file, None: deletes it; return its hash. Raises GitFailed."""
    index = {"GIT_INDEX_FILE": str(made.folder / f"index-{parent}")}
    Path(index["GIT_INDEX_FILE"]).unlink(missing_ok=True)
    run(made, "read-tree", parent, extra=index)
    if text is None:
        run(made, "update-index", "--force-remove", "--", str(path), extra=index)
    else:
        blob = run(made, "hash-object", "-w", "--stdin", given=text).strip()
        run(made, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", extra=index)
    tree = run(made, "write-tree", "--missing-ok", extra=index).strip()
    names = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _identity(by)}
    signing: tuple[str, ...] = ()
    if by.keyring is not None:
        signing = (f"-S{by.key}",)
        program = made.folder / "gpg"
        # Git hands no home to GPG, and the variable would also reach the remote's helpers.
        program.write_text(f'#!/bin/sh\nexec gpg --homedir "{by.keyring}" --batch --no-tty "$@"\n', encoding="utf-8")
        program.chmod(0o700)
        run(made, "config", "gpg.program", str(program))
        run(made, "config", "gpg.format", "openpgp")
    return run(made, "commit-tree", *signing, "-p", parent, tree, given=message, extra=names).strip()


def push(made: Clone, commit: str, branch: str = "") -> bool:
    """Move a remote branch to a commit that follows its head, or create it; False if it went elsewhere meanwhile.

    Raises GitFailed when the remote refuses, which repeating does not mend: rights, a protected branch, no answer.
    """
    name = branch or made.branch
    for pause in (*PATIENCE[:1], None):
        before = remote_head(made, name)
        if before == commit:
            return True
        done = _git(made, "push", "--porcelain", "origin", f"{commit}:refs/heads/{name}")
        # The answer may have got lost, and a refusal may have many reasons: where the branch is says what happened.
        after = remote_head(made, name)
        if after == commit or done.returncode == 0:
            return True
        if after != before or (after and not contains(made, commit, after)):
            return False
        if pause is None:
            raise _failed(f"{made.url} does not take a commit on {name}", done)
        time.sleep(pause)
    raise AssertionError


def run(made: Clone, *words: str, given: str | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Run git in a clone and return its output. Raises GitFailed."""
    done = _git(made, *words, given=given, extra=extra)
    if done.returncode:
        raise _failed(f"git {words[0]} failed", done)
    return done.stdout.decode("utf-8", "replace")


def _git(
    made: Clone, *words: str, given: str | None = None, extra: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    program = shutil.which("git")
    if program is None:
        raise GitFailed("releases are committed with git, which is not installed", next_step="install git")
    try:
        return subprocess.run(  # noqa: S603 - no shell
            [program, *words],
            cwd=made.folder,
            env={**os.environ, **made.environment, **(extra or {})},
            input=(given or "").encode(),
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git {words[0]} does not end", measured=f"{TIMEOUT_SECONDS} s", allowed=made.url) from error


def _failed(what: str, done: "subprocess.CompletedProcess[bytes]") -> GitFailed:
    said = " ".join((done.stderr + b" " + done.stdout).decode("utf-8", "replace").split())[-500:]
    return GitFailed(
        what,
        measured=said or f"exit code {done.returncode}",
        allowed="a repository that answers, and rights to what is asked of it",
        next_step="check DRIFTLINE_GIT_URL, token or key, and the branch's protection, then `driftline release sync`",
    )


def _identity(by: Committer) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("NAME", by.name), ("EMAIL", by.email)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return what git is told beside its arguments, which every process of the machine can read."""
    values = {"core.hooksPath": "/dev/null", "protocol.version": "2", "advice.detachedHead": "false"}
    url = urlsplit(settings.git_url)
    if url.scheme in ("http", "https") and settings.git_token is not None and settings.git_token.is_file():
        token = settings.git_token.read_text(encoding="utf-8").strip()
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        # For this server only: a redirect elsewhere must not get it.
        values[f"http.{url.scheme}://{url.netloc}/.extraHeader"] = f"Authorization: Basic {basic}"
    environment = {
        "GIT_DIR": str(folder),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(values)),
        **{f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(values)},
        **{f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(values.values())},
    }
    if settings.git_ssh_key is not None and settings.git_ssh_key.is_file():
        environment["GIT_SSH_COMMAND"] = _ssh_command(settings.git_ssh_key, folder)
    return environment


def _ssh_command(key: Path, folder: Path) -> str:
    # A mounted Secret may be readable by its group, which ssh refuses.
    own = folder / "ssh-key"
    own.touch(mode=0o600)
    own.write_bytes(key.read_bytes())
    hosts = key.parent / "known_hosts"
    known = f" -o UserKnownHostsFile={hosts}" if hosts.is_file() else ""
    return f"ssh -i {own} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes{known}"
