"""The branch that says what serves: what it names, what it released before, and the commit that releases a version.

Each commit of ours says what it is in trailers, so that the history alone tells what was released, also after a revert.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from components.core.errors import ConfigError, GitFailed
from components.core.git import Clone, history, messages, read_text, read_texts
from components.core.ledger.serving import Seen
from components.core.release import ENVIRONMENTS, Release, parse_release, release_path
from components.core.settings import Settings

USE_CASE, ENVIRONMENT, VERSION, RUN = (
    f"Driftline-{name}" for name in ("Use-Case", "Environment", "Model-Version", "Run")
)
REVERTS = "Driftline-Reverts-Version"
_TRAILER = re.compile(r"^(Driftline-[A-Za-z-]+): (\S+)$", re.MULTILINE)


def own_environment(settings: Settings) -> str:
    """Return the environment that this installation releases to. Raises ConfigError for an unknown one."""
    return known_environment(settings.git_environment, "DRIFTLINE_GIT_ENVIRONMENT")


def known_environment(name: str, what: str) -> str:
    """Return the name of an environment. Raises ConfigError for an unknown one."""
    if name not in ENVIRONMENTS:
        raise ConfigError(f"{what} is no environment", measured=repr(name), allowed=", ".join(ENVIRONMENTS))
    return name


def require_head(made: Clone, head: str) -> str:
    """Return the head of the branch. Raises GitFailed when there is no such branch."""
    if not head:
        raise GitFailed(
            f"{made.url} has no branch {made.branch}",
            allowed="a branch with at least one commit",
            next_step="push the infra/ tree to it, or set DRIFTLINE_GIT_BRANCH",
        )
    return head


def look(made: Clone, head: str, use_case: str, environment: str) -> Seen:
    """Return what a branch says at a commit. Raises ConfigError for a file that is no release of this use case."""
    path = release_path(use_case, environment)
    named = names(made, head, use_case, environment)
    return Seen(
        use_case=use_case,
        environment=environment,
        release=release_at(made, head, path, use_case),
        commit=named[0][0] if named else head,
        head=head,
        # A merge that squashes may lose our trailers, a hand-made commit never had them: the contents count as well.
        released={
            **{release.run_id: release.model_version for _, release in named if release is not None},
            **said_released(made, head, use_case, environment),
        },
    )


def names(made: Clone, head: str, use_case: str, environment: str) -> list[tuple[str, Release | None]]:
    """Return each commit that changed a release and what it names since, newest first; nonsense names nothing."""
    path = release_path(use_case, environment)
    commits = history(made, head, path)
    found: list[tuple[str, Release | None]] = []
    for commit, text in zip(commits, read_texts(made, commits, path), strict=True):
        release = None
        if text is not None:
            with suppress(ConfigError):
                release = parse_release(text, commit, use_case=use_case)
        found.append((commit, release))
    return found


def release_at(made: Clone, commit: str, path: PurePosixPath, use_case: str) -> Release | None:
    """Return the release that a commit names, None when it names none. Raises ConfigError for nonsense."""
    text = read_text(made, commit, path)
    return None if text is None else parse_release(text, f"{path} at {commit[:12]}", use_case=use_case)


def said_released(made: Clone, head: str, use_case: str, environment: str) -> dict[str, int]:
    """Return run and version of each release that a message in the history of a branch tells."""
    found: dict[str, int] = {}
    for _, message in messages(made, head, f"{USE_CASE}: {use_case}"):
        for group in trailers(message):
            mine = group.get(USE_CASE) == use_case and group.get(ENVIRONMENT) == environment
            if mine and RUN in group and group.get(VERSION, "").isdecimal():
                found[group[RUN]] = int(group[VERSION])
    return found


def trailers(message: str) -> list[Mapping[str, str]]:
    """Return the groups of our trailers in a message: a squashed merge holds one for each commit of its branch."""
    groups: list[dict[str, str]] = []
    for name, value in _TRAILER.findall(message):
        if name == USE_CASE or not groups:
            groups.append({})
        groups[-1][name] = value
    return list(groups)


def release_message(release: Release, environment: str, body: str = "") -> str:
    """Return the message of the commit that releases a version."""
    subject = f"Release {release.use_case} {release.model_version} to {environment}"
    said = [
        (USE_CASE, release.use_case),
        (ENVIRONMENT, environment),
        (VERSION, str(release.model_version)),
        (RUN, release.run_id),
    ]
    return _message(subject, body, said)


def revert_message(
    reverted: list[str], use_case: str, environment: str, *, version: int, back_to: int, reason: str
) -> str:
    """Return the message of a commit that takes a version back; `reverted` are the commits that it undoes."""
    subject = f"Revert {use_case} from {version} to {back_to} in {environment}"
    undone = "\n".join(f"This reverts commit {commit}." for commit in reverted)
    said = [(USE_CASE, use_case), (ENVIRONMENT, environment), (REVERTS, str(version))]
    return _message(subject, "\n\n".join(part for part in (_plain(reason), undone) if part), said)


def _plain(text: str) -> str:
    """Return a text of others in one line that no reader of trailers takes for one."""
    return " ".join(text.split())[:500].replace("Driftline-", "Driftline ")


def _message(subject: str, body: str, said: list[tuple[str, str]]) -> str:
    parts = [subject, body.strip(), "\n".join(f"{name}: {value}" for name, value in said)]
    return "\n\n".join(part for part in parts if part) + "\n"
