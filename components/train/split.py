"""Splitting by time: what a model could have learned when its holdout began."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.core.sections import Train

Instants = npt.NDArray[np.datetime64]
Positions = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Positions of the rows of each part, and the instants between the parts."""

    training: Positions
    validation: Positions
    holdout: Positions
    validation_from: datetime
    holdout_from: datetime


def split_by_time(predicted: Instants, known: Instants, config: Train) -> Split:
    """Cut labelled rows into training, validation and holdout by prediction instant.

    The holdout is the newest `holdout_days` up to the newest row, validation the `validation_days` before it, training
    the `window_days` before that, or everything. A row whose label became known only after the next part began is left
    out (purging; Lopez de Prado, Advances in Financial Machine Learning, 2018, section 7.4.1).
    Instants are datetime64[us] in UTC. Raises DataError when a part is empty.
    """
    if not len(predicted):
        raise DataError(
            "the training set has no labelled rows",
            measured=0,
            next_step="choose a later as_of, or check that the label's SQL yields values",
        )
    newest = predicted.max()
    holdout_from = newest - np.timedelta64(config.holdout_days, "D")
    validation_from = holdout_from - np.timedelta64(config.validation_days, "D")
    holdout = predicted >= holdout_from
    validation = (predicted >= validation_from) & (predicted < holdout_from) & (known < holdout_from)
    training = (predicted < validation_from) & (known < validation_from)
    if config.window_days:
        training &= predicted >= validation_from - np.timedelta64(config.window_days, "D")
    for name, part in (("training", training), ("validation", validation), ("holdout", holdout)):
        if not part.any():
            raise DataError(
                f"the {name} part has no rows",
                measured=f"rows from {predicted.min()} to {newest}, holdout from {holdout_from},"
                f" validation from {validation_from}",
                allowed="at least one row whose label was known before the next part began",
                next_step="reduce train.holdout_days or train.validation_days, widen train.window_days,"
                " or wait for more labels",
            )
    return Split(
        training=np.flatnonzero(training),
        validation=np.flatnonzero(validation),
        holdout=np.flatnonzero(holdout),
        validation_from=_instant(validation_from),
        holdout_from=_instant(holdout_from),
    )


def _instant(value: np.datetime64) -> datetime:
    return value.astype("datetime64[us]").item().replace(tzinfo=UTC)  # type: ignore[no-any-return]
