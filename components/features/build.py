"""The features step: an approved snapshot becomes a training set, and the online store follows."""

from pathlib import Path

from components.core.clock import parse_instant
from components.core.errors import DataError
from components.core.ledger.refusals import recorded_refusal
from components.core.object_store import fetch_snapshot
from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import read_snapshot
from components.core.training_set import TrainingSet
from components.core.verdict import require_approved
from components.features.checks import require_registry
from components.features.definitions import registry_digest
from components.features.materialize import materialize
from components.features.store import open_store
from components.features.training_set import write_training_set


def build(
    settings: Settings,
    use_case: str,
    *,
    as_of: str,
    problem: Problem,
    config: Features,
    registry: str,
    snapshot: Path,
    verdict: Path,
    folder: Path,
) -> TrainingSet:
    """Write the training set into `folder`, then bring the online store up to `as_of`.

    `registry` is the digest of the definitions that the pipeline was compiled for; empty: not checked. An empty `as_of`
    is the snapshot's. Raises GateRefused when validation refused the snapshot, FeatureError when the registry differs.
    """
    taken = read_snapshot(snapshot)
    with recorded_refusal(settings, "features"):
        require_approved(verdict, gate="validate", subject=taken.digest)
    if taken.use_case != use_case:
        raise DataError("the snapshot belongs to another use case", measured=taken.use_case, allowed=use_case)
    until = parse_instant(as_of) if as_of else taken.as_of
    fetch_snapshot(settings, taken)
    store = open_store(settings, use_case, manifest=snapshot)
    require_registry(registry_digest(store, config.service), registry, config.service)
    made = write_training_set(folder, store, settings.snapshots, taken, problem=problem, config=config, as_of=until)
    materialize(settings, use_case, manifest=snapshot, config=config, as_of=until)
    return made
