"""Pull requests through the API that GitHub has, and Gitea and Forgejo took over: `/repos/{owner}/{repo}/pulls`."""

import json
import re
import time
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, GitFailed
from components.core.settings import Settings

TIMEOUT_SECONDS = 30
PATIENCE = (0.5, 1.0, 2.0)
"""Seconds between attempts to read."""
PAGE = 50
MAX_PAGES = 40
MAX_BODY_CHARACTERS = 60_000
"""GitHub takes 65,536."""
_TAKEN = (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)


class PullRequest(BaseModel):
    """A pull request as its forge tells it."""

    model_config = ConfigDict(frozen=True)

    number: int
    url: str
    open: bool
    merged: bool
    head: str
    """Commit at the tip of its branch."""
    title: str
    body: str


def open_pull_request(settings: Settings, branch: str, *, title: str, body: str) -> PullRequest:
    """Open a pull request from a branch to the branch of releases, or bring the open one up to date.

    One stays open: whoever comes second updates what the first one opened. GitHub refuses a second one; Gitea may let
    two processes open one each (seen with 1.26), then the second one closes its own. Raises ConfigError for an address
    without owner and repository, GitFailed when the forge refuses or does not answer.
    """
    text = body[:MAX_BODY_CHARACTERS]
    found = _oldest_open(settings, branch)
    if found is None:
        new = {"title": title, "body": text, "head": branch, "base": settings.git_branch}
        status, answer = _call(settings, "POST", "pulls", new)
        if status != HTTPStatus.CREATED and status not in _TAKEN:
            raise _refused("open a pull request", status, answer)
        # Another process may have opened one in between.
        found = _oldest_open(settings, branch)
        if found is None:
            raise _refused("open a pull request", status, answer)
        if status == HTTPStatus.CREATED and answer["number"] > found.number:
            _change(settings, answer["number"], {"state": "closed"})
    if (found.title, found.body) == (title, text):
        return found
    return _change(settings, found.number, {"title": title, "body": text})


def _oldest_open(settings: Settings, branch: str) -> PullRequest | None:
    found = [request for request in pull_requests(settings, branch) if request.open]
    return found[-1] if found else None


def _change(settings: Settings, number: int, values: dict[str, str]) -> PullRequest:
    status, answer = _call(settings, "PATCH", f"pulls/{number}", values)
    if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise _refused(f"change pull request {number}", status, answer)
    return _to_pull_request(answer)


def pull_requests(settings: Settings, branch: str) -> list[PullRequest]:
    """Return the pull requests from a branch to the branch of releases, open or not, newest first."""
    owner, _ = _repository(settings)
    found = []
    for page in range(1, MAX_PAGES + 1):
        # Gitea does not know `head`, GitHub does not know `limit`; each ignores what it does not know.
        query = (
            f"pulls?state=all&head={owner}:{branch}&base={settings.git_branch}&limit={PAGE}&per_page={PAGE}&page={page}"
        )
        status, answer = _read(settings, query)
        if status != HTTPStatus.OK or not isinstance(answer, list):
            raise _refused("list pull requests", status, answer)
        found += [
            _to_pull_request(each)
            for each in answer
            if each["head"]["ref"] == branch and each["base"]["ref"] == settings.git_branch
        ]
        if len(answer) < PAGE:
            break
    return sorted(found, key=lambda request: request.number, reverse=True)


def _to_pull_request(answer: Any) -> PullRequest:
    return PullRequest(
        number=answer["number"],
        url=answer["html_url"],
        open=answer["state"] == "open",
        merged=bool(answer.get("merged") or answer.get("merged_at")),
        head=answer["head"]["sha"],
        title=answer["title"],
        body=answer.get("body") or "",
    )


def _repository(settings: Settings) -> tuple[str, str]:
    """Return owner and name of the repository: the last two parts of its address."""
    parts = [part for part in re.split(r"[/:]", settings.git_url.removesuffix("/").removesuffix(".git")) if part]
    if len(parts) < 2:  # noqa: PLR2004 - owner and name
        raise ConfigError(
            "DRIFTLINE_GIT_URL does not say whose repository it is", measured=settings.git_url, allowed=".../OWNER/NAME"
        )
    return parts[-2], parts[-1]


def _read(settings: Settings, path: str) -> tuple[int, Any]:
    """Ask until the answer is no passing one: Gitea 1.26 said 404 to a list while a merge was being finished."""
    for pause in PATIENCE:
        status, answer = _call(settings, "GET", path)
        if status != HTTPStatus.NOT_FOUND and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return status, answer
        time.sleep(pause)
    return _call(settings, "GET", path)


def _call(settings: Settings, method: str, path: str, given: dict[str, Any] | None = None) -> tuple[int, Any]:
    import urllib3

    owner, name = _repository(settings)
    headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "driftline"}
    if settings.git_token is not None and settings.git_token.is_file():
        headers["Authorization"] = f"token {settings.git_token.read_text(encoding='utf-8').strip()}"
    try:
        # A pool of its own: steps are forked, and two processes must not share a connection.
        with urllib3.PoolManager() as pool:
            answer = pool.request(
                method,
                f"{settings.forge_url}/repos/{owner}/{name}/{path}",
                body=None if given is None else json.dumps(given).encode(),
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                # A POST whose answer got lost is found by the next call, not repeated blindly.
                retries=urllib3.Retry(
                    3, backoff_factor=0.5, allowed_methods=["GET"], redirect=0, raise_on_redirect=False
                ),
            )
    except urllib3.exceptions.HTTPError as error:
        raise GitFailed(
            "the forge does not answer",
            measured=str(error)[:300],
            allowed=settings.forge_url,
            next_step="check DRIFTLINE_FORGE_URL, then run the command again: an open pull request is not doubled",
        ) from error
    try:
        return answer.status, json.loads(answer.data) if answer.data else None
    except ValueError:
        return answer.status, answer.data[:300].decode(errors="replace")


def _refused(what: str, status: int, answer: Any) -> GitFailed:
    said = answer.get("message", answer) if isinstance(answer, dict) else answer
    return GitFailed(
        f"the forge does not let us {what}",
        measured=f"HTTP {status}: {str(said)[:300]}",
        allowed="a token that may read and write pull requests of this repository",
        next_step="check DRIFTLINE_FORGE_URL, DRIFTLINE_GIT_URL and DRIFTLINE_GIT_TOKEN",
    )
