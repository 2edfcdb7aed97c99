"""What became of the release that a run made: which commit has it, where, and which one took it back."""

from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, GitFailed
from components.core.git import Clone, clone, fetch
from components.core.ledger.champions import Promotion, find_promotion, list_promotions
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.ledger.serving import list_serving
from components.core.release import ENVIRONMENTS
from components.core.release_branch import names, require_head
from components.core.settings import Settings

SHOWN_DIGITS = 12


class Traced(BaseModel):
    """The release of one run in one environment."""

    model_config = ConfigDict(frozen=True)

    use_case: str
    environment: str
    version: int
    state: Literal["committed", "not committed", "taken back", "reverted", "unknown"]
    """committed: Git names it, or did until a newer one came. taken back: Git went on to an older one.
    reverted: and the ledger followed, so that it is never promoted again. unknown: Git cannot be read."""
    commit: str = ""
    """That released it."""
    ended_by: str = ""
    """Commit that named another version, or none, instead."""
    named: int | None = None
    """Version that Git names now."""
    error: str = ""


def trace_run(settings: Settings, run_id: str) -> list[Traced]:
    """Return the release of a run in each environment that has or had it, and in the own one in any case.

    Nothing for a run that promoted nothing, or before promotions were committed. A repository that cannot be read is
    said, with what the ledger knows. Raises LedgerError.
    """
    ledger = open_ledger(settings.ledger_url)
    promoted = find_promotion(ledger, run_id)
    if promoted is None or read_release(ledger, promoted.model, promoted.version) is None:
        return []
    reverted_by = _reverted_by(ledger, promoted)
    if not settings.git_url:
        return [_as_the_ledger_knows(settings, ledger, promoted, reverted_by, "DRIFTLINE_GIT_URL is not set")]
    try:
        with clone(settings) as made:
            head = require_head(made, fetch(made))
            found = [_trace(made, head, promoted, environment) for environment in ENVIRONMENTS]
    except (GitFailed, ConfigError) as error:
        return [_as_the_ledger_knows(settings, ledger, promoted, reverted_by, str(error))]
    own = settings.git_environment
    return [
        each.model_copy(update={"state": "reverted", "ended_by": reverted_by})
        if each.environment == own and reverted_by and each.named != promoted.version
        else each
        for each in found
        if each.commit or each.environment == own
    ]


def render_trace(traced: Traced) -> str:
    """Write it for a terminal, in one line."""
    said = f"released to {traced.environment}: version {traced.version}"
    ended = f"commit {traced.ended_by[:SHOWN_DIGITS]}"
    now = "nothing" if traced.named is None else f"version {traced.named}"
    if traced.state == "not committed":
        return f"{said} is not in Git, which names {now}: driftline release sync --use-case {traced.use_case}"
    if traced.commit:
        said += f" by commit {traced.commit[:SHOWN_DIGITS]}"
    if traced.state in ("reverted", "taken back"):
        said += f", {traced.state} by {ended}"
    elif traced.ended_by:
        said += f", replaced by {ended}"
    if traced.error:
        return f"{said}; Git: {traced.error}"
    return f"{said}; Git names {'it' if traced.named == traced.version else now}"


def _trace(made: Clone, head: str, promoted: Promotion, environment: str) -> Traced:
    named = names(made, head, promoted.model, environment)
    now = named[0][1].model_version if named and named[0][1] is not None else None
    known = {"use_case": promoted.model, "environment": environment, "version": promoted.version, "named": now}
    mine = [n for n, (_, release) in enumerate(named) if release is not None and release.run_id == promoted.run_id]
    if not mine:
        return Traced(**known, state="not committed")
    known["commit"] = named[mine[-1]][0]
    if mine[0] == 0:
        return Traced(**known, state="committed")
    ended_by, instead = named[mine[0] - 1]
    earlier = {release.run_id for _, release in named[mine[-1] :] if release is not None}
    back = instead is None or instead.run_id in earlier
    return Traced(**known, state="taken back" if back else "committed", ended_by=ended_by)


def _reverted_by(ledger: sa.Engine, promoted: Promotion) -> str:
    """Return the commit by which a version was taken back, '' when it was not, or is back again."""
    lines = [line for line in list_promotions(ledger, promoted.model) if line.version == promoted.version]
    return lines[-1].commit if lines[-1].outcome == "reverted" else ""


def _as_the_ledger_knows(
    settings: Settings, ledger: sa.Engine, promoted: Promotion, reverted_by: str, error: str
) -> Traced:
    environment = settings.git_environment
    served = next(
        (s for s in list_serving(ledger) if (s.use_case, s.environment) == (promoted.model, environment)), None
    )
    known = {"use_case": promoted.model, "environment": environment, "version": promoted.version, "error": error}
    known["named"] = served.version if served else None
    if reverted_by:
        return Traced(**known, state="reverted", ended_by=reverted_by)
    if served is not None and served.version == promoted.version:
        return Traced(**known, state="committed", commit=served.commit)
    return Traced(**known, state="unknown")
