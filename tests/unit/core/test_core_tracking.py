"""MLflow without a server: runs, versions, bundles and the alias, against a real store."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from components.core import tracking
from components.core.bundle import ENCODING, ONNX, ModelCard, model_digest, write_card
from components.core.errors import ConfigError, DataError, StorageFailed
from components.core.settings import Settings

DATA = tracking.TrainingData(name="delays_v1", digest="a" * 64, snapshot="b" * 64, rows=10)


def settings_at(home: Path) -> Settings:
    return Settings(
        home=home,
        feature_repo=home,
        ledger_url="",
        mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        feature_registry_url="",
        online_store_url="",
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One store for the module: creating MLflow's schema takes seconds. Each test uses a model name of its own."""
    return settings_at(tmp_path_factory.mktemp("home"))


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", "-").replace("]", "")


def make_bundle(folder: Path, model: str, version: int, run_id: str, content: str = "graph") -> ModelCard:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ONNX).write_text(content)
    (folder / ENCODING).write_text('{"columns": []}')
    now = datetime(2024, 1, 1, tzinfo=UTC)
    card = ModelCard(
        use_case=model,
        task="classification",
        version=version,
        mlflow_run=run_id,
        model=model_digest(folder),
        training_set="a" * 64,
        snapshot="b" * 64,
        registry="c" * 64,
        service="delays_v1",
        code="",
        as_of=now,
        trainer={"kind": "xgboost"},
        device="cpu",
        seed=7,
        first=now,
        last=now,
        holdout_from=now,
        rows=1,
        validation={"auc": 0.5},
        seconds=1.0,
    )
    write_card(folder, card)
    return card


def registered(store: Settings, model: str, folder: Path, run_key: str = "run", content: str = "graph") -> ModelCard:
    run_id = tracking.start_run(store, model, run_key)
    version = tracking.register_version(store, model, run_id)
    card = make_bundle(folder, model, version, run_id, content)
    tracking.upload_bundle(store, run_id, folder)
    return card


def client(store: Settings):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(store.mlflow_uri, store.mlflow_uri)


def test_a_run_key_names_one_run_per_use_case(store: Settings, model: str) -> None:
    first = tracking.start_run(store, model, "run.1")
    assert tracking.start_run(store, model, "run.1") == first
    assert (
        len({first, tracking.start_run(store, model, "run-1"), tracking.start_run(store, f"{model}-2", "run.1")}) == 3
    )


def test_artifacts_lie_below_home(store: Settings, model: str) -> None:
    run = client(store).get_run(tracking.start_run(store, model, "run"))
    assert run.info.artifact_uri.startswith(store.mlflow_artifacts.as_uri())


def test_a_finished_run_runs_again_on_retry(store: Settings, model: str) -> None:
    run_id = tracking.start_run(store, model, "run")
    tracking.finish_run(store, run_id)
    assert client(store).get_run(run_id).info.status == "FINISHED"
    assert tracking.start_run(store, model, "run") == run_id
    assert client(store).get_run(run_id).info.status == "RUNNING"


def test_the_run_of_kfps_own_plugin_is_used_and_left_open(store: Settings, model: str) -> None:
    plugin = client(store).create_run(client(store).create_experiment(f"kfp-{model}")).info.run_id
    attached = store.model_copy(update={"mlflow_run": plugin})
    assert tracking.start_run(attached, model, "run") == plugin
    tracking.finish_run(attached, plugin)
    assert client(store).get_run(plugin).info.status == "RUNNING"
    assert client(store).get_experiment_by_name(model) is None


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(store: Settings, model: str) -> None:
    tracking.start_run(store, model, "run")
    experiment = client(store).get_experiment_by_name(model)
    client(store).delete_experiment(experiment.experiment_id)
    with pytest.raises(ConfigError, match="was deleted") as caught:
        tracking.start_run(store, model, "run")
    assert experiment.experiment_id in caught.value.next_step


def test_parameters_and_data_are_logged_once_and_may_not_change(store: Settings, model: str) -> None:
    run_id = tracking.start_run(store, model, "run")
    parameters = {f"trainer.p{i}": i for i in range(150)}
    for _ in range(2):
        tracking.log_training(store, run_id, parameters, DATA)
    run = client(store).get_run(run_id)
    assert run.data.params == {name: str(value) for name, value in parameters.items()}
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("delays_v1", "a" * 36)
    assert json.loads(dataset.dataset.source) == {"snapshot": "b" * 64}
    with pytest.raises(ConfigError, match="other training parameters") as caught:
        tracking.log_training(store, run_id, parameters | {"trainer.p7": 8}, DATA)
    assert (caught.value.measured, caught.value.allowed) == ("trainer.p7=8", "trainer.p7=7")
    assert client(store).get_run(run_id).data.params == run.data.params


def test_metrics_and_long_curves_are_logged_in_order(store: Settings, model: str) -> None:
    run_id = tracking.start_run(store, model, "run")
    curve = [1 / (step + 1) for step in range(2_500)]
    tracking.log_metrics(store, run_id, {"auc": 0.75, "logloss": 0.5}, {"curve_logloss": curve})
    assert client(store).get_run(run_id).data.metrics["auc"] == 0.75
    found = sorted(client(store).get_metric_history(run_id, "curve_logloss"), key=lambda m: m.step)
    assert [m.value for m in found] == pytest.approx(curve)


def test_versions_count_up_and_a_retry_gets_its_own_again(store: Settings, model: str) -> None:
    runs = [tracking.start_run(store, model, f"run-{i}") for i in range(3)]
    versions = [tracking.register_version(store, model, run_id) for run_id in runs]
    assert versions == [1, 2, 3]
    assert [tracking.register_version(store, model, run_id) for run_id in reversed(runs)] == [3, 2, 1]


def test_a_bundle_comes_back_as_it_was_stored(store: Settings, model: str, tmp_path: Path) -> None:
    card = registered(store, model, tmp_path / "bundle")
    fetched = tracking.download_bundle(store, model, card.version, tmp_path / "deep" / "fetched")
    assert fetched == tmp_path / "deep" / "fetched"
    names = sorted(p.name for p in fetched.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "bundle").iterdir())
    assert all((fetched / n).read_bytes() == (tmp_path / "bundle" / n).read_bytes() for n in names)
    assert [p.name for p in fetched.parent.iterdir()] == ["fetched"]


def test_a_good_copy_is_kept_and_a_damaged_one_replaced(store: Settings, model: str, tmp_path: Path) -> None:
    card = registered(store, model, tmp_path / "bundle")
    copy = tracking.download_bundle(store, model, card.version, tmp_path / "copy")
    (copy / "mine").touch()
    tracking.download_bundle(store, model, card.version, copy)
    assert (copy / "mine").exists()
    (copy / ONNX).write_text("damaged")
    tracking.download_bundle(store, model, card.version, copy)
    assert (copy / ONNX).read_text() == "graph"
    assert not (copy / "mine").exists()


def test_the_copy_of_another_version_is_replaced(store: Settings, model: str, tmp_path: Path) -> None:
    first = registered(store, model, tmp_path / "1", "run-1", content="first")
    second = registered(store, model, tmp_path / "2", "run-2", content="second")
    for card, content in ((first, "first"), (second, "second"), (first, "first")):
        copy = tracking.download_bundle(store, model, card.version, tmp_path / "copy")
        assert (copy / ONNX).read_text() == content


def test_a_deleted_or_unknown_version_is_named(store: Settings, model: str, tmp_path: Path) -> None:
    card = registered(store, model, tmp_path / "bundle")
    client(store).delete_model_version(model, str(card.version))
    for name, version in ((model, card.version), (model, 99), ("nobody", 1)):
        with pytest.raises(DataError, match=f"version {version} of {name} is not in the model registry"):
            tracking.download_bundle(store, name, version, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_version_without_its_bundle_is_refused(store: Settings, model: str, tmp_path: Path) -> None:
    version = tracking.register_version(store, model, tracking.start_run(store, model, "run"))
    with pytest.raises(DataError, match="has no complete bundle"):
        tracking.download_bundle(store, model, version, tmp_path / "copy")


@pytest.mark.parametrize("damage", ["change", "remove", "exchange"])
def test_a_bundle_changed_in_the_store_is_refused(store: Settings, model: str, tmp_path: Path, damage: str) -> None:
    card = registered(store, model, tmp_path / "bundle")
    (stored,) = store.mlflow_artifacts.glob(f"*/{card.mlflow_run}/artifacts/bundle")
    if damage == "change":
        (stored / ONNX).write_text("another graph")
    elif damage == "remove":
        (stored / ENCODING).unlink()
    else:
        make_bundle(stored, model, card.version, card.mlflow_run, content="another graph, another card")
    with pytest.raises(DataError, match="is not the one that was registered"):
        tracking.download_bundle(store, model, card.version, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_a_bundle_that_its_card_does_not_describe_is_not_stored(store: Settings, model: str, tmp_path: Path) -> None:
    run_id = tracking.start_run(store, model, "run")
    version = tracking.register_version(store, model, run_id)
    make_bundle(tmp_path / "bundle", model, version, run_id)
    (tmp_path / "bundle" / ONNX).write_text("changed")
    with pytest.raises(DataError, match="not the one its card describes"):
        tracking.upload_bundle(store, run_id, tmp_path / "bundle")
    assert client(store).list_artifacts(run_id) == []


def test_the_champion_alias_and_tags(store: Settings, model: str, tmp_path: Path) -> None:
    assert tracking.champion_alias(store, model) is None
    versions = [registered(store, model, tmp_path / str(i), f"run-{i}").version for i in range(2)]
    assert tracking.champion_alias(store, model) is None
    for version in (*versions, versions[0]):
        tracking.set_champion_alias(store, model, version)
        assert tracking.champion_alias(store, model) == version
    tracking.tag_version(store, model, versions[0], {"gate": "promote", "bento": "d" * 64})
    tags = client(store).get_model_version(model, str(versions[0])).tags
    assert tags["gate"] == "promote"
    assert tags["bento"] == "d" * 64


def test_an_alias_for_an_unknown_version_is_an_error(store: Settings, model: str) -> None:
    tracking.register_version(store, model, tracking.start_run(store, model, "run"))
    with pytest.raises(StorageFailed, match="failed"):
        tracking.set_champion_alias(store, model, 42)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="MLflow at sqlite"):
        tracking.start_run(settings_at(tmp_path / "file"), "delays", "run")


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    """At once: MLflow itself would try for 100 seconds."""
    uri = "postgresql+psycopg://u:s3cret@127.0.0.1:1/mlflow"
    with pytest.raises(StorageFailed, match="MLflow at postgresql") as caught:
        tracking.start_run(settings_at(tmp_path).model_copy(update={"mlflow_uri": uri}), "delays", "run")
    assert "s3cret" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in caught.value.next_step


def race(home: str, barrier, results, number: int) -> None:  # type: ignore[no-untyped-def]
    settings = settings_at(Path(home))
    barrier.wait()
    run_id = tracking.start_run(settings, "delays", f"run-{number}")
    results.put((run_id, tracking.register_version(settings, "delays", run_id)))


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh store", "existing store"])
def test_three_processes_at_once_get_three_runs_and_versions(tmp_path: Path, fresh: bool) -> None:
    if not fresh:
        tracking.start_run(settings_at(tmp_path), "other", "run")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=race, args=(str(tmp_path), barrier, results, i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = [results.get(timeout=10) for _ in processes]
    assert len({run_id for run_id, _ in found}) == 3
    assert sorted(version for _, version in found) == [1, 2, 3]


@pytest.mark.slow
def test_a_kill_during_the_creation_of_the_store_leaves_no_half_made_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(1), context.Queue()
    first = context.Process(target=race, args=(str(tmp_path), barrier, results, 1))
    first.start()
    deadline = time.monotonic() + 120
    # MLflow has begun to write its tables into the file that is not yet in place.
    while not any(p.stat().st_size > 100_000 for p in (tmp_path / "mlflow").glob(".mlflow.db.????????")):
        assert first.is_alive()
        assert time.monotonic() < deadline
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    settings = settings_at(tmp_path)
    run_id = tracking.start_run(settings, "delays", "run-1")
    assert tracking.register_version(settings, "delays", run_id) == 1


@pytest.mark.slow
def test_the_same_calls_work_through_a_real_server(tmp_path: Path) -> None:
    """The server proxies artifacts, as the chart configures it."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        store = settings_at(tmp_path / "home").model_copy(update={"mlflow_uri": f"http://127.0.0.1:{port}"})
        card = registered(store, "delays", tmp_path / "bundle")
        again = registered(store, "delays", tmp_path / "bundle")
        assert again == card
        tracking.log_training(store, card.mlflow_run, {"p": 1}, DATA)
        tracking.log_metrics(store, card.mlflow_run, {"auc": 0.7}, {"curve": [0.1] * 300})
        tracking.set_champion_alias(store, "delays", card.version)
        assert tracking.champion_alias(store, "delays") == card.version
        assert tracking.champion_alias(store, "nobody") is None
        copy = tracking.download_bundle(store, "delays", card.version, tmp_path / "copy")
        assert model_digest(copy) == card.model
        with pytest.raises(DataError, match="not in the model registry"):
            tracking.download_bundle(store, "delays", 99, tmp_path / "copy2")
        assert not (tmp_path / "home").exists()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str, server: subprocess.Popen) -> None:  # type: ignore[type-arg]
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail("the MLflow server did not start")
