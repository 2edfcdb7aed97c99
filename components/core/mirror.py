"""MLflow's alias `champion`: a copy of the ledger's champion for people and tools that read MLflow."""

import logging

import sqlalchemy as sa

from components.core.errors import StorageFailed
from components.core.ledger.champions import list_champions, list_unmirrored, mark_mirrored, read_champion
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings

log = logging.getLogger(__name__)


def repair_mirror(settings: Settings) -> list[str]:
    """Make the alias of every model follow the ledger and return the models that had to be corrected.

    A promotion that was killed between ledger and alias leaves the alias behind. One model that MLflow cannot point
    to, such as a deleted version, is logged and does not hold up the others. Raises LedgerError.
    """
    engine = open_ledger(settings.ledger_url)
    repaired = []
    for champion in list_champions(engine):
        try:
            if mirror_champion(settings, engine, champion.model):
                repaired.append(champion.model)
        except StorageFailed as error:
            log.warning("the alias of %s does not follow the ledger: %s", champion.model, error)
    return repaired


def mirror_changed(settings: Settings) -> None:
    """Make the alias follow where a champion changed since it last did: after a revert, or a promotion that was killed.

    One model holds up no other one. Raises the first StorageFailed at the end, LedgerError; the next call goes on.
    """
    engine = open_ledger(settings.ledger_url)
    errors: list[StorageFailed] = []
    for model in list_unmirrored(engine):
        try:
            if mirror_champion(settings, engine, model):
                log.warning("the alias of %s in MLflow follows the ledger again", model)
        except StorageFailed as error:
            log.error("the alias of %s does not follow the ledger: %s", model, error)
            errors.append(error)
    if errors:
        raise errors[0]


def mirror_if_reachable(settings: Settings, model: str) -> None:
    """Make the alias of a model follow the ledger; an MLflow that is away is logged and holds nothing up.

    Whoever comes next repairs it: the controller, the next promotion, or `driftline release sync`.
    """
    from components.core.tracking_client import require_answer

    try:
        # MLflow's own client would try for more than four minutes.
        require_answer(settings)
        mirror_champion(settings, open_ledger(settings.ledger_url), model)
    except StorageFailed as error:
        log.warning("the alias of %s does not follow the ledger yet: %s", model, error)


def mirror_champion(settings: Settings, engine: sa.Engine, model: str) -> bool:
    """Point the alias to the ledger's champion and return whether it had to move.

    MLflow has no compare-and-swap, so two mirrors can write in the wrong order. Each reads the ledger again after its
    write: the last writer of all then wrote the champion. Raises LedgerError or StorageFailed.
    """
    from components.core.tracking import champion_alias, set_champion_alias

    moved = False
    alias = champion_alias(settings, model)
    while (champion := read_champion(engine, model)) is not None and champion.version != alias:
        set_champion_alias(settings, model, champion.version)
        alias = champion.version
        moved = True
    if champion is not None:
        mark_mirrored(engine, model, champion.version)
    return moved
