"""Following Git: which version it names, and taking back a release whose canary was aborted."""

import logging
from collections import Counter
from typing import Any

from components.core.errors import ConfigError, DataError, DriftlineError
from components.core.ledger.champions import list_champions
from components.core.ledger.engine import open_ledger
from components.core.release_publishing import observe_release
from components.core.settings import Settings
from pipelines.controller.exposition import Exposition, Sample
from pipelines.controller.rollouts import Aborted, revert_aborted
from pipelines.releases.revert import open_revert

log = logging.getLogger(__name__)

SOURCE = "rollouts"


def observe_releases(settings: Settings) -> None:
    """Record which version Git names for each use case that has a champion, and let the champion follow a revert.

    One that cannot be read holds up no other one. Raises the first error of `observe_release` at the end, LedgerError.
    """
    errors: list[DriftlineError] = []
    for champion in list_champions(open_ledger(settings.ledger_url)):
        try:
            observe_release(settings, champion.model)
        except DriftlineError as error:
            log.error("%s: %s", champion.model, error)
            errors.append(error)
    if errors:
        raise errors[0]


class Reverts:
    """Reverts of aborted canaries, opened by this process."""

    def __init__(self, settings: Settings, exposition: Exposition) -> None:
        self._settings, self._exposition = settings, exposition
        self._opened: Counter[str] = Counter()
        self._done: set[Aborted] = set()

    def look(self, client: Any, namespaces: tuple[str, ...]) -> None:
        """Take back each release whose canary was aborted. Raises what `revert_aborted` raises."""
        try:
            revert_aborted(client, list(namespaces), self.open, self._done)
        finally:
            self._exposition.put(SOURCE, self.samples())

    def open(self, aborted: Aborted) -> None:
        """Open the revert of a release; where nothing can be gone back to, say so once. Raises GitFailed."""
        environment = self._settings.git_environment
        try:
            change = open_revert(self._settings, aborted.use_case, environment, aborted.version, aborted.reason)
        except (DataError, ConfigError) as error:
            log.error("version %d of %s is not taken back: %s", aborted.version, aborted.use_case, error)
            return
        log.warning(
            "revert of version %d of %s: %s %s",
            aborted.version,
            aborted.use_case,
            change.state,
            change.pull_request or change.branch or change.commit[:12],
        )
        if change.state in ("committed", "proposed"):
            self._opened[aborted.use_case] += 1

    def samples(self) -> list[Sample]:
        """Return how many reverts were opened, of every use case that has a champion."""
        champions = {champion.model for champion in list_champions(open_ledger(self._settings.ledger_url))}
        where = {"environment": self._settings.git_environment}
        return [
            Sample("driftline_reverts_opened_total", self._opened[case], {"use_case": case, **where})
            for case in sorted(champions | set(self._opened))
        ]
