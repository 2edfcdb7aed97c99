"""The wrapper, called with KFP's own artifact types as the local runner calls it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core.digests import file_digest
from components.core.settings import Settings


def test_the_wrapper_writes_predictions_and_metrics(
    settings: Settings,
    crown: Callable[..., Any],
    scoring_set: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kfp.dsl import Dataset, Metrics

    from components.score.component import score

    monkeypatch.setenv("DRIFTLINE_HOME", str(settings.home))
    crown(settings, 1)
    out, metrics = Dataset(uri=str(tmp_path / "out")), Metrics(uri=str(tmp_path / "metrics"))
    score.python_func(use_case="rides", scoring_set=Dataset(uri=str(scoring_set())), predictions=out, metrics=metrics)
    assert pq.read_table(tmp_path / "out").num_rows == 60
    assert out.metadata == {"digest": file_digest(tmp_path / "out"), "rows": 60, "model_versions": [1]}
    assert set(metrics.metadata) == {"rows", "rows_unanswered", "days_scored", "days_kept", "mean_prediction"}
    assert metrics.metadata["days_scored"] == 3
