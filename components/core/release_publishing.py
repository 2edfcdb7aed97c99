"""Promotion by commit, and following what Git says: between the ledger and the branch of releases.

The champion of the ledger is what is published. Whoever publishes fetches first and reads the champion after that: a
newer champion's commit then either is there already, or makes this push fail, and the newest champion wins.
"""

import logging
import random
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, DataError, GitFailed, LedgerError
from components.core.git import Clone, clone, contains, fetch, make_commit, push, remote_head
from components.core.git_signing import committer
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.ledger.serving import Observed, Serving, read_serving, record_observation
from components.core.mirror import mirror_if_reachable
from components.core.release import release_path, render_release
from components.core.release_branch import look, own_environment, release_message, require_head
from components.core.settings import Settings

log = logging.getLogger(__name__)

ATTEMPTS = 60
"""Each failed push means that somebody else's succeeded."""


class Published(BaseModel):
    """What became of a champion's release."""

    model_config = ConfigDict(frozen=True)

    use_case: str
    environment: str
    version: int | None
    """The champion; None: there is none."""
    state: Literal["committed", "unchanged", "taken back", "nothing"]
    """taken back: Git released this version earlier and names another one now. nothing: there is no champion, or it was
    promoted before promotions were committed."""
    commit: str = ""


def publish_champion(settings: Settings, use_case: str) -> Published:
    """Commit the release of the ledger's champion unless Git has it, or had it and was reverted.

    Equal content makes no commit. Raises ConfigError for settings or a file in Git that cannot be used, DataError for a
    rewritten history, GitFailed when the repository cannot be read or written; the champion stays promoted then, and
    calling this again is safe.
    """
    environment, engine = own_environment(settings), open_ledger(settings.ledger_url)
    with clone(settings) as made, committer(settings) as by:
        for attempt in range(ATTEMPTS):
            before = read_serving(engine, use_case, environment)
            head = require_head(made, fetch(made))
            # What an older branch does not know, it may have taken back.
            _require_follows(settings, made, head, before)
            champion = read_champion(engine, use_case)
            version = champion.version if champion else None
            kept = read_release(engine, use_case, champion.version) if champion else None
            known = {"use_case": use_case, "environment": environment, "version": version}
            if kept is None:
                log.warning("%s: no release is recorded for version %s, nothing is committed", use_case, version)
                return Published(**known, state="nothing")
            seen = look(made, head, use_case, environment)
            if seen.release == kept.release:
                _observe(settings, made, head, use_case)
                return Published(**known, state="unchanged", commit=seen.commit)
            if kept.release.run_id in seen.released:
                log.warning("%s: version %s was released and taken back, it is not released again", use_case, version)
                return Published(**known, state="taken back", commit=seen.commit)
            commit = make_commit(
                made,
                by,
                head,
                release_path(use_case, environment),
                render_release(kept.release),
                release_message(kept.release, environment),
            )
            if push(made, commit):
                log.info("%s: version %s released to %s by commit %s", use_case, version, environment, commit[:12])
                _observe(settings, made, commit, use_case)
                return Published(**known, state="committed", commit=commit)
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311 - spreads writers
    raise GitFailed(
        f"branch {settings.git_branch} of {settings.git_url} moves too fast",
        measured=f"{ATTEMPTS} pushes came second",
        next_step="driftline release sync",
    )


def observe_release(settings: Settings, use_case: str, *, rewritten: bool = False) -> Observed | None:
    """Record which version Git names, and let the champion follow a revert; None while Git names none.

    `rewritten` accepts a branch whose history no longer holds what was observed before. Raises ConfigError for a file
    that is no release, DataError for one that the ledger does not know or a rewritten history, GitFailed when the
    repository cannot be read; nothing changes then.
    """
    with clone(settings) as made:
        return _observe(settings, made, "", use_case, rewritten=rewritten)


def observe_if_reachable(settings: Settings, use_case: str) -> None:
    """Observe the release where there is a repository; what is wrong with it is logged and holds nothing up.

    MLflow's alias follows a champion that changed.
    """
    if not settings.git_url:
        return
    try:
        observed = observe_release(settings, use_case)
    except (GitFailed, ConfigError, DataError) as error:
        log.warning("what Git says of %s is not known, the ledger counts: %s", use_case, error)
        return
    if observed is not None and observed.event:
        mirror_if_reachable(settings, use_case)


def _observe(settings: Settings, made: Clone, head: str, use_case: str, *, rewritten: bool = False) -> Observed | None:
    """Record what the branch says, `head` if that was fetched after nothing else was observed, else its newest head."""
    environment, engine = own_environment(settings), open_ledger(settings.ledger_url)
    for _ in range(ATTEMPTS):
        # Before the head is read: a branch read later is no older than what was observed earlier.
        before = read_serving(engine, use_case, environment)
        newest = remote_head(made)
        if before is not None and newest == before.head:
            champion = read_champion(engine, use_case)
            return Observed(serving=before, champion=champion.version if champion else None)
        if not newest or newest != head:
            head = fetch(made)
        if not head:
            return None
        if not rewritten:
            _require_follows(settings, made, head, before)
        seen = look(made, head, use_case, environment)
        if seen.release is None and before is None:
            return None
        observed = record_observation(engine, seen, before)
        if observed is not None:
            if observed.event:
                log.warning(
                    "%s: commit %s names version %s instead of %s, which is %s; it is the champion now",
                    use_case,
                    seen.commit[:12],
                    observed.champion,
                    observed.replaced,
                    "taken back" if observed.event == "reverted" else "replaced",
                )
            return observed
    raise LedgerError("what serves is observed by too many at once", measured=use_case, next_step="try again")


def _require_follows(settings: Settings, made: Clone, head: str, before: Serving | None) -> None:
    """Raise DataError unless a branch still holds what was observed of it before."""
    if before is not None and not contains(made, head, before.head):
        raise DataError(
            f"the history of {settings.git_branch} was rewritten, or its server answers with an old one",
            measured=f"head {head[:12]} does not follow {before.head[:12]}",
            allowed="commits on top of what was there",
            next_step="if that was meant: driftline release sync --rewritten",
        )
