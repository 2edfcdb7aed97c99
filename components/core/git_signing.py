"""Signing commits with a GPG key of our own, in a keyring that lives as long as one call."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, GitFailed
from components.core.settings import Settings

GPG_TIMEOUT_SECONDS = 60


class Committer(BaseModel):
    """Who makes a commit."""

    model_config = ConfigDict(frozen=True)

    name: str = "Driftline"
    email: str = "driftline@localhost"
    key: str = ""
    """Fingerprint of the signing key; empty: commits are not signed."""
    keyring: Path | None = None


@contextmanager
def committer(settings: Settings) -> Iterator[Committer]:
    """Yield who makes commits; GPG's home is a temporary folder, and its agent ends with the block.

    Raises ConfigError without a key for a repository that is no local path, and for a file that holds none; GitFailed
    when GPG is missing or fails.
    """
    path = settings.git_signing_key
    if path is None or not path.is_file():
        if not is_local(settings.git_url):
            raise ConfigError(
                "commits to a repository elsewhere are signed, and there is no key",
                measured=f"DRIFTLINE_GIT_SIGNING_KEY={path or ''}",
                allowed="a file with a GPG private key; only a local path as DRIFTLINE_GIT_URL needs none",
                next_step="create the Secret driftline-git-write, or name the file (docs/releases.md)",
            )
        yield Committer()
        return
    # Short: a socket's path has at most 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dl-gpg-"))
    try:
        gpg(folder, "--import", str(path))
        yield _only_key(folder, path)
    finally:
        if agent := shutil.which("gpgconf"):
            subprocess.run(  # noqa: S603 - fixed words and our own folder
                [agent, "--homedir", str(folder), "--kill", "gpg-agent"], capture_output=True, check=False
            )
        shutil.rmtree(folder, ignore_errors=True)


def may_commit(settings: Settings) -> bool:
    """Return whether this installation has what `committer` asks for: a key, or a repository that needs none."""
    key = settings.git_signing_key
    return (key is not None and key.is_file()) or is_local(settings.git_url)


def is_local(url: str) -> bool:
    """Return whether a repository's address is a path of this machine."""
    return url.startswith(("/", "file:///"))


def gpg(folder: Path, *words: str) -> str:
    """Run GPG with a home of its own and return what it says. Raises GitFailed."""
    program = shutil.which("gpg")
    if program is None:
        raise GitFailed("commits are signed with gpg, which is not installed", next_step="install GnuPG")
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            [program, "--homedir", str(folder), "--batch", "--no-tty", "--quiet", *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=GPG_TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise GitFailed("gpg does not answer", measured=f"{GPG_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        raise GitFailed("gpg failed", measured=done.stderr.strip()[-300:], next_step="check DRIFTLINE_GIT_SIGNING_KEY")
    return done.stdout


def _only_key(folder: Path, path: Path) -> Committer:
    """Return whom the imported key belongs to (format: GnuPG doc/DETAILS, colon listings)."""
    fields = [line.split(":") for line in gpg(folder, "--with-colons", "--list-secret-keys").splitlines()]
    keys = [field for field in fields if field[0] == "sec"]
    if len(keys) != 1:
        raise ConfigError(f"{path} is no signing key", measured=f"{len(keys)} private keys", allowed="one")
    fingerprint = next(field[9] for field in fields if field[0] == "fpr")
    owner = next((field[9] for field in fields if field[0] == "uid"), "")
    name, _, email = owner.partition("<")
    return Committer(
        name=name.strip() or Committer().name,
        email=email.strip().rstrip(">") or Committer().email,
        key=fingerprint,
        keyring=folder,
    )
