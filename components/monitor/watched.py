"""What is watched: the champion, its predictions in a window, their labels, and what it saw before."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.bundle import Encoding, ModelCard, read_card, read_encoding
from components.core.champion import extract_champion
from components.core.errors import DataError
from components.core.evidence import Window
from components.core.inference_log import log_schema, read_predictions
from components.core.label_join import LABEL, LABEL_TIMESTAMP, by_entity, join_labels, joined_ids
from components.core.object_store import fetch_predictions, fetch_snapshot
from components.core.profile import HOLDOUT, PREDICTION, REFERENCE, HoldoutPerformance, Profile, read_profile
from components.core.sections import Problem
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, read_table

PAST_DAYS = 28


@dataclass(frozen=True)
class WatchedModel:
    """A champion with everything that its Bento tells about it."""

    version: int
    card: ModelCard
    spec: ServingSpec
    encoding: Encoding
    profile: Profile
    holdout: HoldoutPerformance
    reference: pa.Table
    """A sample of the rows that it was made from: inputs, event_timestamp, and the prediction where it is honest."""


@dataclass(frozen=True)
class WatchedRows:
    """Rows of the inference log."""

    window: pa.Table
    """Predictions of the watched model in the window, with `label` and `label_timestamp`."""
    past: pa.Table
    """Predictions of any model in the days before the window."""
    notes: list[str]


def load_champion(settings: Settings, use_case: str, folder: Path) -> WatchedModel:
    """Unpack the champion's Bento into `folder` and read it; the model registry is not asked.

    Raises what `extract_champion` does, and DataError when it was packaged without a reference profile.
    """
    champion, spec = extract_champion(settings, use_case, folder)
    absent = [name for name in (REFERENCE, HOLDOUT) if not (folder / name).is_file()]
    if absent:
        raise DataError(
            f"the Bento of {use_case} version {champion.version} carries no reference profile",
            measured=f"without {', '.join(absent)}",
            next_step="train and package the model again",
        )
    profile = read_profile(folder)
    return WatchedModel(
        version=champion.version,
        card=read_card(folder),
        spec=spec,
        encoding=read_encoding(folder),
        profile=profile,
        holdout=HoldoutPerformance.model_validate_json((folder / HOLDOUT).read_text(encoding="utf-8")),
        reference=_unseen_predictions(pq.read_table(folder / REFERENCE), profile.prediction.days),
    )


def _unseen_predictions(reference: pa.Table, days: Sequence[str]) -> pa.Table:
    """Return the sample with predictions only of days that the model was not fitted on: of its own it is too sure."""
    day = pc.strftime(reference.column("event_timestamp"), format="%Y-%m-%d")
    unseen = pc.is_in(day, value_set=pa.array(days, pa.string()))
    place = reference.column_names.index(PREDICTION)
    honest = pc.if_else(unseen, reference.column(PREDICTION), pa.scalar(None, pa.float64()))
    return reference.set_column(place, PREDICTION, honest)


def read_rows(
    settings: Settings,
    model: WatchedModel,
    problem: Problem,
    snapshot: Snapshot,
    *,
    window: Window,
    as_of: datetime,
) -> WatchedRows:
    """Read the model's predictions in a window with their labels as known at `as_of`, and what came before.

    Rows that the model may have been fitted on say nothing about it: only those at or after its holdout's first
    instant are kept, with a note.
    """
    root, use_case = settings.predictions, model.spec.use_case
    fetch_predictions(settings, use_case, window.first - timedelta(days=PAST_DAYS), window.last)
    fetch_snapshot(settings, snapshot)
    logged = read_predictions(root, use_case, window.first, window.last, version=model.version)
    fresh = pc.greater_equal(logged.column("as_of"), pa.scalar(model.card.holdout_from, TIMESTAMP))
    # A log without files has no columns of the model either.
    rows = logged.filter(fresh) if logged.num_rows else log_schema(model.spec).empty_table()
    notes = []
    if rows.num_rows < logged.num_rows or window.last <= model.card.holdout_from:
        notes.append(
            f"version {model.version} was fitted on rows before {model.card.holdout_from:%Y-%m-%d}: "
            f"{logged.num_rows - rows.num_rows:,} predictions of that time are not judged"
        )
    elif not rows.num_rows:
        notes.append(f"version {model.version} answered nothing in this window")
    past = read_predictions(root, use_case, window.first - timedelta(days=PAST_DAYS), window.first)
    labels = read_table(settings.snapshots, snapshot, problem.table, _label_columns(snapshot, problem))
    return WatchedRows(with_labels(rows, labels, problem, as_of), past, notes)


def with_labels(rows: pa.Table, labels: pa.Table, problem: Problem, as_of: datetime) -> pa.Table:
    """Return the rows with `label` and `label_timestamp`, null while unknown at `as_of`, ordered by instant.

    A row whose request id is the id of a prediction (its columns joined by a space, as batch scoring writes it) gets
    that prediction's label; any other is found by its entities and its instant.
    """
    named = labels.append_column(REQUEST_ID, joined_ids(labels, problem.id))
    is_named = pc.is_in(rows.column("request_id"), value_set=pc.unique(named.column(REQUEST_ID)))
    by_id, by_key = rows.filter(is_named), rows.filter(pc.invert(is_named))
    wanted = pc.is_in(named.column(REQUEST_ID), value_set=pc.unique(by_id.column("request_id")))
    parts = [
        join_labels(
            by_id,
            named.filter(wanted),
            on={"request_id": REQUEST_ID},
            label=problem.label,
            as_of=as_of,
        ),
        join_labels(
            by_key,
            _same_instants(labels, by_key),
            on=by_entity(problem.entities),
            label=problem.label,
            as_of=as_of,
            ids=problem.id,
        ),
    ]
    return pa.concat_tables(parts).sort_by([("as_of", "ascending"), ("request_id", "ascending"), ("row", "ascending")])


REQUEST_ID = "joined_request_id"


def _same_instants(labels: pa.Table, rows: pa.Table) -> pa.Table:
    instants = rows.column("as_of")
    return labels.filter(pc.is_in(labels.column("event_timestamp").cast(TIMESTAMP), value_set=pc.unique(instants)))


def _label_columns(snapshot: Snapshot, problem: Problem) -> list[str]:
    manifest = snapshot.tables.get(problem.table)
    optional = ["created_timestamp"] if manifest and "created_timestamp" in manifest.columns else []
    wanted = [*problem.id, *problem.entities, "event_timestamp", LABEL_TIMESTAMP, problem.label, *optional]
    return list(dict.fromkeys(wanted))


def labelled(rows: pa.Table) -> pa.Table:
    """Return the rows whose label is known."""
    return rows.filter(pc.is_valid(rows.column(LABEL)))
