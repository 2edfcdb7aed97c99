"""What serves according to Git, beside what the ledger knows of it."""

from itertools import product

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError
from components.core.git import clone, fetch
from components.core.ledger.champions import list_champions
from components.core.ledger.engine import open_ledger
from components.core.ledger.serving import list_serving
from components.core.release import ENVIRONMENTS
from components.core.release_branch import look, require_head
from components.core.settings import Settings


class Shown(BaseModel):
    """The release of one use case in one environment."""

    model_config = ConfigDict(frozen=True)

    use_case: str
    environment: str
    version: int | None
    """That Git names; None: none, or its file is no release."""
    commit: str
    observed: int | None
    """That the ledger knew last."""
    champion: int | None
    """None in an environment that this installation does not release to."""
    released: list[int]
    """Versions that were released there, ever."""
    error: str = ""


def show_releases(settings: Settings, use_case: str = "") -> list[Shown]:
    """Return what Git says in each environment that has a release, and in the own one in any case.

    Of one use case, or of all that the ledger knows a champion or a release of. Raises ConfigError, GitFailed,
    LedgerError.
    """
    engine = open_ledger(settings.ledger_url)
    champions = {champion.model: champion.version for champion in list_champions(engine)}
    observed = {(row.use_case, row.environment): row.version for row in list_serving(engine)}
    cases = [use_case] if use_case else sorted(champions.keys() | {case for case, _ in observed})
    shown = []
    with clone(settings) as made:
        head = require_head(made, fetch(made))
        for case, environment in product(cases, ENVIRONMENTS):
            own = environment == settings.git_environment
            known = {
                "use_case": case,
                "environment": environment,
                "observed": observed.get((case, environment)),
                "champion": champions.get(case) if own else None,
            }
            try:
                seen = look(made, head, case, environment)
            except ConfigError as error:
                shown.append(Shown(**known, version=None, commit=head, released=[], error=str(error)))
                continue
            if seen.release is not None or seen.released or own:
                released = sorted(set(seen.released.values()))
                shown.append(Shown(**known, version=seen.version, commit=seen.commit, released=released))
    return shown
