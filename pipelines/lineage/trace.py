"""From a prediction to everything it rests on.

    prediction → model → Bento → promotion → run → MLflow → features → training set → snapshot → code, and the cause

Nothing is asked over a network, except that files may come from the object store. Every digest is computed again, and
the prediction itself is: the archived model must give it for the inputs that were logged. A broken link is a finding,
not an error.
"""

import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.ledger.engine import open_ledger
from components.core.object_store import fetch_log
from components.core.settings import Settings
from pipelines.lineage.link import Link, broken, unverified, verified
from pipelines.lineage.model import Subject, bento_link, cause_link, gather, model_link, promotion_link, run_link
from pipelines.lineage.origin import origin_links
from pipelines.lineage.search import Logged, find_predictions

TOLERANCE = 1e-6


class Trace(BaseModel):
    """One prediction and its links, from the answer back to the data and the code."""

    model_config = ConfigDict(frozen=True)

    prediction: Logged
    links: list[Link]

    @property
    def verified(self) -> bool:
        return all(link.state == "verified" for link in self.links)


def trace(settings: Settings, request_id: str, use_case: str = "") -> list[Trace]:
    """Return the lineage of every prediction of a request, the newest first.

    Raises DataError for an unknown id, ConfigError for a use case without a log, LedgerError.
    """
    fetch_log(settings, use_case)
    found = find_predictions(settings.predictions, request_id, use_case)
    ledger = open_ledger(settings.ledger_url)
    with tempfile.TemporaryDirectory(prefix="driftline-lineage-") as scratch:
        folders = {model: Path(scratch) / str(number) for number, model in enumerate({row.model for row in found})}
        subjects = {model: gather(settings, ledger, model, folder) for model, folder in folders.items()}
        shared = {model: model_links(subject) for model, subject in subjects.items()}
        return [
            Trace(prediction=row, links=[answer_link(row, subjects[row.model]), *shared[row.model]]) for row in found
        ]


def model_links(subject: Subject) -> list[Link]:
    """Return the links of a model version, whatever it predicted."""
    own = [model_link(subject), bento_link(subject), promotion_link(subject), run_link(subject)]
    return [*own, *origin_links(subject), cause_link(subject)]


def answer_link(row: Logged, subject: Subject) -> Link:
    """Let the archived model predict the logged inputs again."""
    from components.core.bundle import load_predictor, read_encoding

    value = row.fields["prediction"]
    if subject.folder is None or subject.card is None:
        return unverified("prediction", value, "the files of this model are gone", file=str(row.file))
    try:
        encoding = read_encoding(subject.folder)
        inputs = encoding.encode({name: [given] for name, given in row.inputs.items()}, 1)
        again = float(load_predictor(subject.folder).predict(inputs)[0])
    except Exception as error:  # whatever a damaged graph raises is the finding
        return broken("prediction", value, f"the model does not answer: {error}", file=str(row.file))
    details = {"again": again, "file": str(row.file)}
    if abs(again - value) > TOLERANCE * max(1.0, abs(value)):
        return broken("prediction", value, f"the archived model gives {again} for these inputs", **details)
    return verified("prediction", value, "the archived model gives it again for these inputs", **details)
