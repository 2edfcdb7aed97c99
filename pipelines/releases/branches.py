"""Branches that wait for a person's yes: one commit that changes one release, and its pull request."""

from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import GitFailed
from components.core.forge import open_pull_request, pull_requests
from components.core.git import Clone, contains, fetch, make_commit, push, read_text
from components.core.git_signing import Committer
from components.core.settings import Settings

ATTEMPTS = 20


class Change(BaseModel):
    """What was done to the release of an environment, or asked for."""

    model_config = ConfigDict(frozen=True)

    use_case: str
    environment: str
    version: int | None
    """That Git names after the change."""
    replaced: int | None
    """That it named before."""
    state: Literal["committed", "proposed", "declined", "unchanged"]
    """proposed: a branch waits. declined: its pull request was closed without a merge. unchanged: nothing to do."""
    commit: str = ""
    branch: str = ""
    pull_request: str = ""
    """Address; empty without a forge."""
    body: str = ""
    """What a reviewer reads."""


def push_branch(
    made: Clone, by: Committer, head: str, branch: str, *, path: PurePosixPath, text: str, message: str
) -> str:
    """Let a branch hold a file's new content on top of `head`, and return its tip.

    A branch that holds it already is left alone; one that was merged is moved on. Raises GitFailed.
    """
    for _ in range(ATTEMPTS):
        tip = fetch(made, branch)
        waiting = bool(tip) and not contains(made, head, tip)
        if waiting and read_text(made, tip, path) == text:
            return tip
        commit = make_commit(made, by, tip if waiting else head, path, text, message)
        if push(made, commit, branch):
            return commit
    raise GitFailed(f"branch {branch} moves too fast", measured=f"{ATTEMPTS} pushes came second", next_step="try again")


def ask(settings: Settings, branch: str, tip: str, *, title: str, body: str, again: bool) -> tuple[str, bool]:
    """Open or update the pull request of a branch; return its address and whether it was declined.

    Without `again`, one that was closed for this very commit is an answer. Without a forge there is none. Raises
    GitFailed.
    """
    if not settings.forge_url:
        return "", False
    if not again:
        known = [request for request in pull_requests(settings, branch) if request.head == tip]
        if known and not any(request.open for request in known):
            return known[0].url, True
    return open_pull_request(settings, branch, title=title, body=body).url, False
