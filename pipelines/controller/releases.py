"""Following Git, committing what a promotion could not commit, and taking back a release whose canary was aborted."""

import logging
from collections import Counter
from typing import Any

from components.core.errors import ConfigError, DataError, DriftlineError
from components.core.git_signing import may_commit
from components.core.ledger.champions import list_champions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.release_publishing import observe_release, publish_champion
from components.core.settings import Settings
from pipelines.controller.exposition import Exposition, Sample
from pipelines.controller.rollouts import Aborted, revert_aborted
from pipelines.releases.revert import open_revert

log = logging.getLogger(__name__)

SOURCE = "rollouts"


class Releases:
    """Brings ledger and Git together: the champion follows Git, and one that Git never had is committed.

    It may be killed at any point, and many may do it at once: an observation is a compare-and-swap, equal content makes
    no commit, and nothing that was taken back is committed again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._answered: dict[str, tuple[int, str]] = {}
        """Champion and head of the branch for which there was nothing to commit."""
        self._told: dict[str, int] = {}
        """Champion of which was said that it cannot be committed."""

    def look(self) -> None:
        """Look at each use case that has a champion; one that cannot be read or written holds up no other one.

        Raises the first error of `observe_release` or `publish_champion` at the end, LedgerError.
        """
        errors: list[DriftlineError] = []
        for champion in list_champions(open_ledger(self._settings.ledger_url)):
            try:
                self._follow(champion.model)
            except DriftlineError as error:
                log.error("%s: %s", champion.model, error)
                errors.append(error)
        if errors:
            raise errors[0]

    def _follow(self, use_case: str) -> None:
        settings, ledger = self._settings, open_ledger(self._settings.ledger_url)
        observed = observe_release(settings, use_case)
        champion = read_champion(ledger, use_case)
        served = observed.serving if observed is not None else None
        if champion is None or (served is not None and served.version == champion.version):
            return
        known = champion.version, served.head if served is not None else ""
        if self._answered.get(use_case) == known or read_release(ledger, use_case, champion.version) is None:
            return
        if not may_commit(settings):
            if self._told.get(use_case) != champion.version:
                self._told[use_case] = champion.version
                log.error(
                    "version %d of %s was promoted and is not in Git, and this controller has no key to commit it:"
                    " run `driftline release sync` where there is one, or create the Secret driftline-git-write",
                    champion.version,
                    use_case,
                )
            return
        published = publish_champion(settings, use_case)
        if published.state == "committed":
            log.warning(
                "version %s of %s was not in Git: commit %s", published.version, use_case, published.commit[:12]
            )
        else:
            self._answered[use_case] = known


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
