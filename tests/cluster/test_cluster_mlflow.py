"""KFP's own MLflow plugin: where it is on, a training uses the run that it opened, and no second one appears."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings
from components.core.tracking import RUN_KEY_TAG

USE_CASE = "wind"
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not os.environ.get("KFP_MLFLOW_URI"),
        reason="needs a KFP API server with its MLflow plugin on: set KFP_MLFLOW_URI to the address in its config.json",
    ),
]


def test_a_training_uses_the_run_that_the_plugin_opened(
    cluster: Settings, driftline: CommandLine, images: Path
) -> None:
    from mlflow import MlflowClient

    common = ("--use-case", USE_CASE, "--as-of", "2013-04-20T00:00:00+00:00", "--images", str(images))
    document = json.loads(driftline("submit", "training", *common, "--wait", "--json").stdout)
    client = MlflowClient(cluster.mlflow_uri, cluster.mlflow_uri)
    runs = all_runs(client)
    (parent,) = [run for run in runs if run.data.tags.get("kfp.pipeline_run_id") == document["id"]]
    below = descendants(runs, parent.info.run_id)
    nested = {run.info.run_name: run for run in below}
    # One run per task and per group, all of them the plugin's: none carries our key, and no experiment is ours.
    assert len(nested) == len(below)
    assert {"claim", "ingest", "validate", "features", "train", "evaluate", "package", "promote"} <= set(nested)
    assert [run.info.run_id for run in runs if RUN_KEY_TAG in run.data.tags] == []
    assert client.get_experiment_by_name(USE_CASE) is None

    champion = read_champion(open_ledger(cluster.ledger_url), USE_CASE)
    assert champion is not None
    assert champion.run_id == document["id"]
    train = nested["train"]
    assert client.get_model_version(USE_CASE, str(champion.version)).run_id == train.info.run_id
    assert train.info.status == "FINISHED"
    assert {"validation_rmse", "holdout_rmse", "export_parity_error", "curve_rmse"} <= set(train.data.metrics)
    assert train.data.params["trainer.kind"] == "xgboost"
    # The plugin's own points have other names than ours, and each value stands once.
    names = [name for name in train.data.metrics if not name.startswith("curve_")]
    assert {name: len(client.get_metric_history(train.info.run_id, name)) for name in names} == dict.fromkeys(names, 1)


def all_runs(client: Any) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def descendants(runs: list[Any], run_id: str) -> list[Any]:
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == run_id]
    return children + [run for child in children for run in descendants(runs, child.info.run_id)]
