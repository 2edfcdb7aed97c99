"""How the first model of a use case does in each later month, with features as they were known at the time.

    python benchmarks/by_month.py [--use-case flights] [--until 2014-02-01]

Needs a champion (`driftline run training`). Each month's rows are joined point in time; the model never changes.
"""

import argparse
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.bundle import read_card
from components.core.champion import require_champion
from components.core.clock import parse_instant
from components.core.metrics import Metric, measure
from components.core.settings import load_settings
from components.core.tables import write_snapshot
from components.core.tracking import download_bundle
from components.core.training_set import ROWS
from components.core.usecase import UseCase
from components.evaluate.holdout import predict
from components.features.store import open_store
from components.features.training_set import write_training_set
from components.ingest.snapshot import take_snapshot
from pipelines.catalog import read_case

MIN_ROWS = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--use-case", default="flights")
    parser.add_argument("--until", default="2014-02-01")
    options = parser.parse_args()
    settings = load_settings()
    case = read_case(settings.feature_repo, options.use_case)
    use_case = case.use_case
    champion = require_champion(settings, use_case.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # A home of its own: the newest snapshot of the real one must not move.
        own = settings.model_copy(update={"home": folder / "home"})
        snapshot = take_snapshot(
            own, use_case.name, problem=use_case.problem, data=use_case.data, sql=case.sql, as_of=options.until
        )
        manifest = write_snapshot(own.snapshots, snapshot)
        write_training_set(
            folder,
            open_store(own, use_case.name, manifest=manifest),
            own.snapshots,
            snapshot,
            problem=use_case.problem,
            config=use_case.features,
            as_of=parse_instant(options.until),
        )
        rows = pq.read_table(folder / ROWS)
        bundle = download_bundle(settings, use_case.name, champion.version, folder / "bundle")
        card = read_card(bundle)
        rows = rows.append_column("prediction", pa.array(predict(bundle, rows)))
    print(f"{use_case.title}: version {champion.version}, trained on {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}")
    print_months(use_case, rows, after=card.as_of)


def print_months(use_case: UseCase, rows: pa.Table, *, after: datetime) -> None:
    """Print one line per month after the model was made; `constant` always predicts that month's own mean."""
    metrics: tuple[Metric, ...] = (
        ("auc", "logloss", "ece") if use_case.problem.task == "classification" else ("rmse", "mae")
    )
    loss: Metric = "logloss" if use_case.problem.task == "classification" else "rmse"
    print(f"{'month':<8} {'rows':>7} {'mean label':>10}", *(f"{m:>8}" for m in metrics), f"{'constant':>9}")
    months = pc.strftime(rows.column("event_timestamp"), format="%Y-%m")
    for month in sorted(pc.unique(months).to_pylist()):
        part = rows.filter(pc.equal(months, month))
        if month < f"{after:%Y-%m}" or part.num_rows < MIN_ROWS:
            continue
        labels = part.column(use_case.problem.label).to_numpy()
        predictions = part.column("prediction").to_numpy()
        values = [f"{measure(m, labels, predictions):8.3f}" for m in metrics]
        constant = measure(loss, labels, np.full(len(labels), labels.mean()))
        print(f"{month:<8} {part.num_rows:>7,} {labels.mean():>10.3f}", *values, f"{constant:>9.3f}")


if __name__ == "__main__":
    main()
