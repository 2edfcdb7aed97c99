"""The step `package`: nothing unapproved is built, one archive per model is kept, and it is probed as it will run."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.bundle import ModelCard, read_card
from components.core.digests import file_digest
from components.core.errors import DataError, GateRefused
from components.core.ledger.bentos import read_bento, record_bento
from components.core.ledger.engine import open_ledger
from components.core.ledger.refusals import recorded_refusal
from components.core.object_store import address, fetch, local_path, publish
from components.core.profile import HoldoutPerformance
from components.core.sections import Package, Problem
from components.core.serving import MODEL_FOLDER, ServingSpec, read_archived_spec
from components.core.settings import Settings
from components.core.storage import write_atomically, write_text
from components.core.training_set import read_manifest
from components.core.verdict import require_approved
from components.package.bento import build_bento, write_context
from components.package.description import describe
from components.package.page import render
from components.package.probe import Measurements, probe_bento
from components.package.reference import holdout_performance, write_holdout
from components.package.signing import sign_archive

log = logging.getLogger(__name__)


class Packaged(BaseModel):
    """The archive of a model and what its probe measured."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    digest: str
    """SHA-256 of the archive."""
    model: str
    model_version: int
    measurements: Measurements
    signed_by: str
    """Id of the key that signed the archive; empty when none did."""


def package_model(
    settings: Settings,
    use_case: str,
    *,
    problem: Problem,
    config: Package,
    model: Path,
    training_set: Path,
    verdict: Path,
    bento: Path,
    probe: Path,
) -> Packaged:
    """Build, keep, probe and sign the Bento of an approved model; write the archive to `bento`, a page to `probe`.

    Raises GateRefused when the gate or a limit says no, DataError when the inputs do not belong together,
    PackagingFailed when the Bento cannot be built, booted or does not equal its model.
    """
    card = read_card(model)
    with recorded_refusal(settings, "package"):
        approval = require_approved(verdict, gate="evaluate", subject=card.model)
    performance = holdout_performance(approval)
    rows = read_manifest(training_set)
    if card.use_case != use_case or card.training_set != rows.digest:
        raise DataError(
            "the model was not trained for this use case on this training set",
            measured=f"{card.use_case}, {card.training_set[:12]}",
            allowed=f"{use_case}, {rows.digest[:12]}",
        )
    spec = describe(problem, config, card, rows, model)
    kept = keep_bento(settings, spec, card, bundle=model, training_set=training_set, performance=performance)
    served = read_archived_spec(kept)
    measurements = probe_bento(kept, served, config, bundle=model, training_set=training_set)
    digest = kept.stem
    write_atomically(bento, lambda temporary: _link(kept, temporary))
    # A signature says that the archive passed, so what is above a limit gets none.
    signed_by = "" if _above_limits(measurements, config) else sign_archive(settings, kept)
    write_text(probe, render(served, digest, measurements, config, kept.stat().st_size, signed_by=signed_by))
    with recorded_refusal(settings, "package"):
        for what, measured, allowed in _above_limits(measurements, config):
            raise GateRefused(f"the Bento's {what} is above its limit", measured=round(measured, 1), allowed=allowed)
    return Packaged(
        digest=digest, model=spec.model, model_version=served.version, measurements=measurements, signed_by=signed_by
    )


def keep_bento(
    settings: Settings,
    spec: ServingSpec,
    card: ModelCard,
    *,
    bundle: Path,
    training_set: Path,
    performance: HoldoutPerformance,
) -> Path:
    """Return the kept archive of a release; build and record it when there is none.

    Two builds of one release differ, so the first archive that the ledger records counts: a retry and a concurrent run
    reuse it. The file is complete before it is recorded, hence a kill in between leaves an unused file at worst.
    Raises DataError when the recorded archive is gone or damaged, or the bundle lacks its reference profile.
    """
    engine = open_ledger(settings.ledger_url)
    recorded = read_bento(engine, card.release)
    if recorded is None:
        with tempfile.TemporaryDirectory(prefix="driftline-context-") as folder:
            context = Path(folder) / "context"
            context.mkdir()
            write_context(context, spec=spec, bundle=bundle, training_set=training_set)
            write_holdout(context / MODEL_FOLDER, performance)
            built = Path(folder) / "bento.tar"
            digest = build_bento(context, spec, built)
            archive = settings.bentos / f"{digest}.tar"
            write_atomically(archive, lambda temporary: shutil.copyfile(built, temporary))
        publish(settings, archive)
        recorded = record_bento(engine, card.release, digest, address(settings, archive))
        if recorded.digest != digest:
            archive.unlink()
            log.info("another process packaged version %d first; its archive counts", card.version)
    kept = local_path(settings, recorded.uri)
    if not fetch(settings, kept) or file_digest(kept) != recorded.digest:
        raise DataError(
            "the recorded archive of this model is gone or damaged",
            measured=recorded.uri,
            allowed=recorded.digest,
            next_step="restore the file",
        )
    if (served := read_archived_spec(kept)) != spec:
        log.warning(
            "version %d was packaged earlier: it is served with the limits of then",
            served.version,
        )
    return kept


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file where that is possible; an archive may be large."""
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _above_limits(found: Measurements, config: Package) -> list[tuple[str, float, float]]:
    """Return what was measured above its limit: name, measured, allowed."""
    limited = [
        ("p99 latency in ms", found.p99_ms, config.max_p99_ms),
        ("memory in MB", found.rss_mb, config.max_rss_mb),
    ]
    return [(what, measured, allowed) for what, measured, allowed in limited if not measured <= allowed]
