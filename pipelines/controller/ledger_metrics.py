"""All metrics of the ledger, read in one look at it.

They are counted from rows that stay, so that every replica says the same, also after a restart.
"""

import sqlalchemy as sa

from components.core.ledger.connections import reading
from components.core.ledger.engine import open_ledger
from components.core.ledger.schema import champions, decisions, holds, requests, runs
from components.core.settings import Settings
from pipelines.controller.decision_metrics import decision_samples, request_samples
from pipelines.controller.exposition import Exposition, Sample
from pipelines.controller.model_metrics import model_samples
from pipelines.controller.run_metrics import run_samples

SOURCE = "ledger"
UP = "driftline_ledger_up"


def look_at_ledger(settings: Settings, exposition: Exposition) -> None:
    """Let the exposition say what the ledger says now; of a ledger that is out of reach, only that it is.

    Raises ConfigError, LedgerError.
    """
    try:
        environment = settings.git_environment if settings.git_url else ""
        samples = read_ledger(open_ledger(settings.ledger_url), environment)
    except Exception:
        exposition.put(SOURCE, [Sample(UP, 0)])
        raise
    exposition.put(SOURCE, [Sample(UP, 1), *samples])


def read_ledger(ledger: sa.Engine, environment: str = "") -> list[Sample]:
    """Return all samples that a ledger gives; `environment` is whose releases are committed, empty: nobody's.

    Raises LedgerError.
    """
    with reading(ledger) as connection:
        known = known_use_cases(connection)
        return [
            *run_samples(connection, known),
            *decision_samples(connection, known),
            *request_samples(connection, known),
            *model_samples(connection, known, environment),
        ]


def known_use_cases(connection: sa.Connection) -> list[str]:
    """Return the use cases that a ledger has anything about, by name."""
    columns = (runs.c.use_case, champions.c.model, decisions.c.model, requests.c.model, holds.c.model)
    return sorted({case for column in columns for case in connection.execute(sa.select(column).distinct()).scalars()})
