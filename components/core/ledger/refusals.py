"""Refusals: the step that says no tells the ledger so, since an orchestrator knows only failed steps."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from components.core.errors import ConfigError, LedgerError, Refused
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import finish_run
from components.core.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def recorded_refusal(settings: Settings, step: str) -> Iterator[None]:
    """End this run in the ledger as refused when the block raises Refused, and the request behind it.

    The refusal is raised in any case; a ledger that cannot be used is a warning beside it.
    """
    try:
        yield
    except Refused as refusal:
        reason = f"{type(refusal).__name__}: {refusal}"
        try:
            finish_run(open_ledger(settings.ledger_url), settings.run_key, "refused", reason=reason, failed_step=step)
        except (LedgerError, ConfigError) as error:
            log.warning("the refusal is not in the ledger: %s", error)
        raise
