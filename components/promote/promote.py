"""Promotion: the gate's approval becomes a champion, once.

Order: facts on the MLflow version, the swap in the ledger, MLflow's alias, the commit of the release. A kill between
two of them and a retry lead to the same end, because the ledger alone decides.
"""

import logging
from pathlib import Path
from typing import Any

from components.core.bundle import ModelCard, read_card
from components.core.digests import file_digest, json_digest
from components.core.errors import DataError, GateRefused
from components.core.ledger import bentos
from components.core.ledger.champions import Candidate, Outcome
from components.core.ledger.champions import promote as swap_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.refusals import recorded_refusal
from components.core.mirror import mirror_champion
from components.core.model_signature import require_signature
from components.core.object_store import fetch, local_path
from components.core.release_publishing import observe_if_reachable, publish_champion
from components.core.settings import Settings
from components.core.verdict import Verdict, require_approved
from components.promote.release import describe_release, pinned_image

log = logging.getLogger(__name__)


def promote(
    settings: Settings, use_case: str, *, bento: Path, model: Path, verdict: Path, serving_image: str = ""
) -> Outcome:
    """Make an approved model the champion of its use case, unless another one was promoted since its gate ran.

    `bento` is the archive, `model` the bundle's folder, `verdict` the gate's file. Returns `superseded` as an ordinary
    outcome, recorded in the ledger. Raises GateRefused when the gate said no, DataError when bento, model and verdict
    do not belong together, Untrusted when a signature is asked for and does not hold, LedgerError and StorageFailed
    when a store fails; nothing is promoted then. With a repository of releases the champion's release is committed;
    `serving_image` is part of it. GitFailed leaves the model promoted: the commit is made by the next call or by
    `driftline release sync`.
    """
    from components.core.tracking import tag_version

    card = read_card(model)
    if card.use_case != use_case:
        raise DataError("the model belongs to another use case", measured=card.use_case, allowed=use_case)
    image = pinned_image(settings, serving_image)
    with recorded_refusal(settings, "promote"):
        approval = require_approved(verdict, gate="evaluate", subject=card.model)
        if approval.decision != "promote":
            raise GateRefused("the gate did not decide to promote", measured=approval.decision, allowed="promote")
    expected = compared_version(approval)
    engine = open_ledger(settings.ledger_url)
    archive = kept_bento(settings, card.release, bento)
    signer = require_signature(settings, local_path(settings, archive.uri), archive.digest)
    candidate = Candidate(
        model=use_case,
        version=card.version,
        digest=card.model,
        bento_digest=archive.digest,
        bento_uri=archive.uri,
        run_id=settings.run_key,
        verdict_digest=json_digest(approval.model_dump(mode="json")),
        as_of=card.as_of,
    )
    tag_version(settings, use_case, card.version, provenance(candidate, card, approval, expected, signer))
    observe_if_reachable(settings, use_case)
    release = describe_release(candidate, card, approval, image) if image else None
    with recorded_refusal(settings, "promote"):
        outcome = swap_champion(engine, candidate, expected, release)
    log.info("version %d of %s: %s (compared with %s)", card.version, use_case, outcome, expected)
    # Also after losing: the winner may have been killed before it moved the alias.
    mirror_champion(settings, engine, use_case)
    if settings.git_url:
        publish_champion(settings, use_case)
    return outcome


def compared_version(approval: Verdict) -> int | None:
    """Return the champion version that the gate compared with, None when there was none.

    Raises DataError when the verdict does not say: a missing entry must not pass for "no champion".
    """
    missing = object()
    value: Any = approval.evidence.get("champion_version", missing)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise DataError(
            "the verdict does not say which champion the gate compared with",
            measured="nothing" if value is missing else repr(value),
            allowed="evidence champion_version: a version, or null for none",
            next_step="run `evaluate` again",
        )
    return int(value)


def kept_bento(settings: Settings, release: str, bento: Path) -> bentos.Bento:
    """Return the record of the archive that `package` kept for this model.

    Raises DataError when there is none, when it is another archive than the one at hand, or when its file is gone.
    """
    found = bentos.read_bento(open_ledger(settings.ledger_url), release)
    measured = file_digest(bento)
    if found is None or found.digest != measured:
        raise DataError(
            "the Bento at hand is not the one that was packaged for this model",
            measured=measured[:12],
            allowed=found.digest[:12] if found else "a recorded archive; the ledger has none for this model",
            next_step="run `package` again",
        )
    if not fetch(settings, local_path(settings, found.uri)):
        raise DataError("the kept archive of this model is gone", measured=found.uri, next_step="restore the file")
    return found


def provenance(
    candidate: Candidate, card: ModelCard, approval: Verdict, expected: int | None, signer: str
) -> dict[str, str]:
    """Return the tags by which a version in MLflow leads back to its run, data, code, verdict and signature."""
    return {
        "gate.status": approval.decision,
        "gate.verdict": candidate.verdict_digest,
        "driftline.run": candidate.run_id,
        "driftline.training_set": card.training_set,
        "driftline.snapshot": card.snapshot,
        "driftline.code": card.code,
        "driftline.bento": candidate.bento_digest,
        "driftline.signed_by": signer or "not verified",
        "driftline.champion_before": "none" if expected is None else str(expected),
    }
