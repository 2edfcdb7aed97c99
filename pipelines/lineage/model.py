"""From a model digest to the Bento that carries it, the promotion that let it serve, and the run that made it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from components.core.bundle import ModelCard, model_digest, read_card, release_of
from components.core.digests import file_digest, json_digest
from components.core.errors import DataError, DriftlineError, Untrusted
from components.core.ledger.bentos import Bento, read_bento
from components.core.ledger.champions import JUDGED, Promotion, list_promotions
from components.core.ledger.runs import read_run
from components.core.ledger.serving import list_serving
from components.core.model_signature import require_signature
from components.core.object_store import fetch, local_path
from components.core.serving import extract_model
from components.core.settings import Settings
from pipelines.lineage.link import Link, broken, compared, unverified, verified
from pipelines.local import IR, RunRecord, read_record
from pipelines.reports import artifact, verdict


@dataclass(frozen=True)
class Subject:
    """A model version and everything that is kept of it."""

    settings: Settings
    ledger: sa.Engine
    use_case: str
    version: int
    digest: str
    release: str
    bento: Bento | None
    folder: Path | None
    """Model files out of the Bento, or else out of the run's folder."""
    card: ModelCard | None
    """None unless the files are those of the digest."""
    promotions: list[Promotion]
    """What came of its runs."""
    taken_back: list[Promotion]
    """What Git said of it since: reverted, reinstated."""
    record: RunRecord | None
    """The training run, if this machine has its folder."""

    @property
    def run_id(self) -> str:
        return self.promotions[-1].run_id if self.promotions else ""


def gather(settings: Settings, ledger: sa.Engine, model: tuple[str, int, str], scratch: Path) -> Subject:
    """Collect what is kept of a model version; `scratch` takes its files.

    Raises LedgerError, ConfigError for a key that verifies nothing, StorageFailed.
    """
    use_case, version, digest = model
    release = release_of(use_case, version, digest)
    bento = read_bento(ledger, release)
    lines = [p for p in list_promotions(ledger, use_case) if p.version == version]
    promotions = [line for line in lines if line.outcome in JUDGED]
    taken_back = [line for line in lines if line.outcome not in JUDGED]
    record = read_record(settings, promotions[-1].run_id) if promotions else None
    folders = _model_files(settings, bento, record, scratch)
    cards = ((folder, _card_of(folder, model)) for folder in folders)
    folder, card = next(((f, c) for f, c in cards if c is not None), (next(iter(folders), None), None))
    return Subject(
        settings, ledger, use_case, version, digest, release, bento, folder, card, promotions, taken_back, record
    )


def _model_files(settings: Settings, bento: Bento | None, record: RunRecord | None, scratch: Path) -> list[Path]:
    """Return the folders that hold the model's files: out of the Bento if it may be trusted, and what training wrote.

    Raises ConfigError for a key that verifies nothing, StorageFailed.
    """
    found = []
    if bento is not None and fetch(settings, archive := local_path(settings, bento.uri)):
        with contextlib.suppress(DataError, Untrusted, ValueError, OSError):
            if settings.model_verifying_key is not None:
                require_signature(settings, archive, file_digest(archive))
            extract_model(archive, scratch)
            found.append(scratch)
    written = artifact(record, "train", "model") if record else None
    return [*found, written] if written else found


def _card_of(folder: Path, model: tuple[str, int, str]) -> ModelCard | None:
    """Return the card if it and the files beside it are those of the model; nothing else may be loaded."""
    try:
        card = read_card(folder)
    except (DriftlineError, OSError, ValueError):
        return None
    return card if (card.use_case, card.version, card.model) == model else None


def model_link(subject: Subject) -> Link:
    """Compute the model's digest again from its graph and encoding."""
    if subject.folder is None:
        return unverified("model", subject.digest, "its files are gone", version=subject.version)
    try:
        found = model_digest(subject.folder)
    except OSError as error:
        return broken("model", subject.digest, f"its files cannot be read: {error}")
    if subject.card is None and found == subject.digest:
        return broken("model", subject.digest, "its card is damaged, or of another version")
    note = f"version {subject.version}, graph and encoding"
    return compared("model", subject.digest, found, note, version=subject.version)


def bento_link(subject: Subject) -> Link:
    """Compute the digest of the archive again, and verify its signature where a key says whose it must be."""
    bento = subject.bento
    if bento is None:
        return broken("bento", "", "the ledger has no Bento of this release", release=subject.release)
    details = {"uri": bento.uri, "release": subject.release, "recorded_at": bento.recorded_at.isoformat()}
    archive = local_path(subject.settings, bento.uri)
    if not archive.is_file():
        return broken("bento", bento.digest, f"{bento.uri} is gone", **details)
    note = "archive"
    if subject.settings.model_verifying_key is not None:
        try:
            signer = require_signature(subject.settings, archive, bento.digest)
        except Untrusted as error:
            return broken("bento", bento.digest, str(error), **details)
        details["signed_by"], note = signer, f"archive, signed by key {signer[:12]}"
    return compared("bento", bento.digest, file_digest(archive), note, **details)


def promotion_link(subject: Subject) -> Link:
    """Compute the digest of the verdict again."""
    if not subject.promotions:
        return broken("promotion", "", f"the ledger has no promotion of version {subject.version}")
    last = subject.promotions[-1]
    before = "no champion" if last.previous_version is None else f"version {last.previous_version}"
    note = f"{last.outcome} {last.at.isoformat(timespec='seconds')} after {before}"
    for line in subject.taken_back:
        note += f"; {line.outcome} by commit {line.commit[:12]}"
    released = [
        s for s in list_serving(subject.ledger) if (s.use_case, s.version) == (subject.use_case, subject.version)
    ]
    for served in released:
        note += f"; serves in {served.environment} by commit {served.commit[:12]}"
    details = {
        **last.model_dump(mode="json"),
        "history": len(subject.promotions) + len(subject.taken_back),
        "commits": {served.environment: served.commit for served in released},
    }
    if last.outcome != "promoted":
        return broken("promotion", last.verdict_digest, f"{note}: this version never was champion", **details)
    judged = verdict(subject.record, "evaluate") if subject.record else None
    if judged is None:
        return unverified("promotion", last.verdict_digest, f"{note}; the verdict is not on this machine", **details)
    if subject.digest != judged.subject:
        return broken("promotion", last.verdict_digest, f"{note}: the verdict judged {judged.subject}", **details)
    return compared("promotion", last.verdict_digest, json_digest(judged.model_dump(mode="json")), note, **details)


def run_link(subject: Subject) -> Link:
    """Compare the ledger's run with its folder on this machine."""
    if not subject.run_id:
        return unverified("run", "", "unknown without a promotion")
    run = read_run(subject.ledger, subject.run_id)
    if run is None:
        return broken("run", subject.run_id, "the ledger does not know it")
    details = run.model_dump(mode="json")
    note = f"{run.pipeline} of {run.use_case}, {run.state}"
    if (run.use_case, run.state) != (subject.use_case, "succeeded"):
        return broken("run", run.id, f"{note}: it promoted nothing of {subject.use_case}", **details)
    ir = subject.settings.runs / run.id / IR
    if subject.record is None or not ir.is_file():
        return unverified("run", run.id, f"{note}; its folder is not on this machine", **details)
    details |= {"ir": file_digest(ir), "folder": str(ir.parent)}
    return compared("run", run.id, subject.record.id, note, **details)


def cause_link(subject: Subject) -> Link:
    """Say which decision asked for the run; its id is the digest of its evidence, its policy and its result."""
    from components.core.ledger.decisions import identify_decision, read_decision
    from components.core.ledger.requests import read_attempt, read_request

    if not subject.run_id:
        return unverified("cause", "", "unknown without a run")
    attempt = read_attempt(subject.ledger, subject.run_id)
    if attempt is None:
        return verified("cause", "", "no request in the ledger: a person or a schedule started the run")
    request = read_request(subject.ledger, attempt.request_id)
    decision = read_decision(subject.ledger, request.decision_id) if request else None
    if request is None or decision is None:
        return broken("cause", attempt.request_id, "the decision behind this request is gone")
    note = f"{decision.rung} in {decision.window.first.date()} to {decision.window.last.date()}: " + "; ".join(
        decision.reasons
    )
    again = identify_decision(decision.evidence, decision.policy_digest, decision.decision, decision.suppressed_by)
    return compared(
        "cause",
        decision.id,
        again,
        note,
        request=request.model_dump(mode="json"),
        attempt=attempt.model_dump(mode="json"),
        decision=decision.model_dump(mode="json", exclude={"evidence"}),
    )
