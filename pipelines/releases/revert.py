"""Taking a release back: what `git revert` does, as one signed commit or as a branch that waits for a yes."""

from components.core.errors import DataError, GitFailed
from components.core.git import Clone, clone, fetch, make_commit, push, read_text
from components.core.git_signing import committer
from components.core.release import release_path
from components.core.release_branch import known_environment, look, names, require_head, revert_message
from components.core.settings import Settings
from pipelines.releases.branches import ATTEMPTS, Change, ask, push_branch


def open_revert(settings: Settings, use_case: str, environment: str, version: int, reason: str) -> Change:
    """Take back a release whose canary was aborted: once, however often and from however many processes this is called.

    The environment that this installation releases to by itself is reverted by itself; any other one by a pull request,
    which is not opened again after somebody closed it. `unchanged`: Git does not name this version (any more). Raises
    ConfigError, DataError when nothing was released before it, GitFailed; calling it again is safe then.
    """
    propose = environment != settings.git_environment
    return revert_release(settings, use_case, environment, version=version, reason=reason, propose=propose, again=False)


def revert_release(
    settings: Settings,
    use_case: str,
    environment: str,
    *,
    version: int | None = None,
    to: int | None = None,
    reason: str = "",
    propose: bool = False,
    again: bool = True,
) -> Change:
    """Let the release of an environment be what it was before, or when it last named version `to`.

    With `version`, only while Git names that one. `propose`: the commit waits on branch
    `revert/<environment>/<use case>/<version>`; `again` also if its pull request was closed. Raises ConfigError for an
    unknown environment, DataError when there is nothing to go back to, GitFailed.
    """
    known_environment(environment, "--env")
    path = release_path(use_case, environment)
    with clone(settings) as made, committer(settings) as by:
        for _ in range(ATTEMPTS):
            head = require_head(made, fetch(made))
            seen = look(made, head, use_case, environment)
            known = {"use_case": use_case, "environment": environment, "replaced": seen.version}
            if seen.version is None:
                raise DataError(
                    f"nothing of {use_case} is released to {environment}", next_step="driftline release show"
                )
            if seen.version == to or version not in (None, seen.version):
                return Change(**known, version=seen.version, state="unchanged", commit=seen.commit)
            target, back_to, undone = _earlier(made, head, use_case, environment, current=seen.version, to=to)
            text = read_text(made, target, path) or ""
            message = revert_message(
                undone, use_case, environment, version=seen.version, back_to=back_to, reason=reason
            )
            known["version"] = back_to
            if propose:
                branch = f"revert/{environment}/{use_case}/{seen.version}"
                tip = push_branch(made, by, head, branch, path=path, text=text, message=message)
                title, _, body = message.partition("\n\n")
                url, declined = ask(settings, branch, tip, title=title, body=body, again=again)
                state = "declined" if declined else "proposed"
                return Change(**known, state=state, commit=tip, branch=branch, pull_request=url, body=body)
            commit = make_commit(made, by, head, path, text, message)
            if push(made, commit):
                return Change(**known, state="committed", commit=commit)
    raise GitFailed(f"branch {settings.git_branch} moves too fast", next_step="run the command again")


def _earlier(
    made: Clone, head: str, use_case: str, environment: str, *, current: int, to: int | None
) -> tuple[str, int, list[str]]:
    """Return the commit whose file is to come back, its version, and the newer commits that are undone.

    Without `to` that is what was released before the current version first was: what came in between was taken back.
    """
    named = names(made, head, use_case, environment)
    versions = [release.model_version if release else None for _, release in named]
    if to is None:
        first = max(n for n, version in enumerate(versions) if version == current)
        candidates = [n for n, version in enumerate(versions) if n > first and version is not None]
    else:
        candidates = [n for n, version in enumerate(versions) if version == to]
    if not candidates:
        raise DataError(
            f"{use_case} cannot go back from version {current} in {environment}",
            measured=f"{'nothing' if to is None else f'no version {to}'} was released there before",
            allowed=", ".join(str(v) for v in dict.fromkeys(versions) if v not in (None, current)) or "no version",
            next_step="remove the use case from infra/ to stop serving it" if to is None else "driftline release show",
        )
    found = candidates[0]
    commits = [commit for commit, _ in named]
    return commits[found], versions[found] or 0, commits[:found]
