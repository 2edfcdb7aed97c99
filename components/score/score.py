"""Batch scoring: the champion predicts the rows of a period, and every day is predicted once.

A day's predictions are one file of the inference log that is never replaced: who was champion when the day was scored
first has answered it. So a run that is killed and started again completes the days that are missing, and of two runs
at once one writes a day and the other keeps it.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.inference_log import Origin, create_part, part_path, split_days
from components.core.object_store import fetch
from components.core.settings import Settings
from components.score.model import answer, load_champion, require_inputs
from components.score.predictions import write_predictions
from components.score.rows import read_rows

log = logging.getLogger(__name__)

WRITER = "batch"


class Scored(BaseModel):
    """What a scoring run left."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    rows: int
    """Predictions of the period, those of kept days included."""
    rows_unanswered: int
    """Rows that the policies `stale` and `missing` refuse, or that joined a day after it was scored."""
    days_scored: int
    days_kept: int
    mean_prediction: float
    model_versions: list[int]
    digest: str
    """SHA-256 of the predictions' Parquet file."""

    @property
    def measurements(self) -> dict[str, float]:
        return {
            "rows": float(self.rows),
            "rows_unanswered": float(self.rows_unanswered),
            "days_scored": float(self.days_scored),
            "days_kept": float(self.days_kept),
            "mean_prediction": self.mean_prediction,
        }


def score(settings: Settings, use_case: str, *, scoring_set: Path, output: Path) -> Scored:
    """Predict the days of a scoring set that have no batch file in the inference log; write the period to `output`.

    `served_at` is the instant that the set's data is known as of, so that equal input gives equal files.
    Raises DataError for a wrong set and one that does not fit the model, PackagingFailed when there is no champion or
    its Bento is gone or was changed, StorageFailed; days that are complete stay then.
    """
    root = settings.predictions
    description, rows = read_rows(scoring_set, use_case)
    days = dict(split_days(rows))
    files = {day: part_path(root, use_case, day, WRITER, 0) for day in days}
    missing = [day for day, path in files.items() if not fetch(settings, path)]
    scored = 0
    if missing:
        model = load_champion(settings, use_case)
        require_inputs(model.spec, description)
        for day in missing:
            table = answer(model, days[day], description.as_of)
            origin = Origin(writer=WRITER, sequence=0, written=table.num_rows, dropped=0)
            scored += create_part(settings, use_case, day, table, origin)
    log.info("%s: %d days scored, %d kept", use_case, scored, len(days) - scored)
    written = write_predictions(output, files, days, ids=description.id)
    return Scored(days_scored=scored, days_kept=len(days) - scored, **written)
