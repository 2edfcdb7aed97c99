"""Promotion of approved models through MLflow and the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.core.bundle import ENCODING, read_card
from components.core.digests import file_digest, json_digest
from components.core.errors import DataError, GateRefused, LedgerError, StorageFailed
from components.core.ledger.champions import Champion, list_promotions, read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import finish_run, read_run
from components.core.mirror import repair_mirror
from components.core.settings import Settings
from components.core.tracking import champion_alias, set_champion_alias
from components.core.verdict import read_verdict
from components.promote.component import promote as promote_step
from components.promote.promote import promote

Approve = Callable[[Settings, int, int | None], Any]


def tags(settings: Settings, version: int) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    return dict(client.get_model_version("flights", str(version)).tags)


def delete_version(settings: Settings, version: int) -> None:
    from mlflow import MlflowClient

    MlflowClient(settings.mlflow_uri, settings.mlflow_uri).delete_model_version("flights", str(version))


def champion(settings: Settings) -> Champion | None:
    return read_champion(open_ledger(settings.ledger_url), "flights")


def test_a_first_model_becomes_champion_everywhere(home: Settings, approve: Approve) -> None:
    first = approve(home, 1, None)
    assert promote(first.settings, "flights", **first.arguments) == "promoted"
    card = read_card(first.model)
    found = champion(home)
    assert found is not None
    assert (found.version, found.digest, found.run_id) == (1, card.model, "run-1")
    assert found.bento_digest == file_digest(first.bento)
    assert found.bento_uri == str(home.bentos / f"{found.bento_digest}.tar")
    assert Path(found.bento_uri).read_bytes() == first.bento.read_bytes()
    assert champion_alias(home, "flights") == 1
    run = read_run(open_ledger(home.ledger_url), "run-1")
    assert run is not None
    assert (run.state, run.as_of) == ("succeeded", card.as_of)


def test_a_version_leads_back_to_its_run_data_code_and_verdict(home: Settings, approve: Approve) -> None:
    first, second = approve(home, 1, None), approve(home, 2, 1)
    promote(first.settings, "flights", **first.arguments)
    promote(second.settings, "flights", **second.arguments)
    card = read_card(second.model)
    verdict = json_digest(read_verdict(second.verdict).model_dump(mode="json"))
    expected = {
        "gate.status": "promote",
        "gate.verdict": verdict,
        "driftline.run": "run-2",
        "driftline.training_set": card.training_set,
        "driftline.snapshot": card.snapshot,
        "driftline.code": "c0de",
        "driftline.bento": file_digest(second.bento),
        "driftline.champion_before": "1",
    }
    assert expected.items() <= tags(home, 2).items()
    assert tags(home, 1)["driftline.champion_before"] == "none"
    history = list_promotions(open_ledger(home.ledger_url), "flights")
    assert [(p.version, p.previous_version, p.run_id) for p in history] == [(1, None, "run-1"), (2, 1, "run-2")]
    assert history[1].verdict_digest == verdict
    assert champion_alias(home, "flights") == 2


def test_a_loser_is_superseded_and_the_alias_stays_with_the_winner(home: Settings, approve: Approve) -> None:
    first, second, third = approve(home, 1, None), approve(home, 2, 1), approve(home, 3, 1)
    promote(first.settings, "flights", **first.arguments)
    assert promote(third.settings, "flights", **third.arguments) == "promoted"
    assert promote(second.settings, "flights", **second.arguments) == "superseded"
    found = champion(home)
    assert found is not None
    assert found.version == 3
    assert champion_alias(home, "flights") == 3
    run = read_run(open_ledger(home.ledger_url), "run-2")
    assert run is not None
    assert (run.state, run.reason) == ("superseded", "the gate compared version 2 with champion 1, now it is 3")


def test_a_version_from_kfp_may_be_a_float(embedded: Settings, approve: Approve) -> None:
    first, second = approve(embedded, 1, None), approve(embedded, 2, 1)
    promote(first.settings, "flights", **first.arguments)
    second.write_verdict(1.0)
    assert promote(second.settings, "flights", **second.arguments) == "promoted"


def test_a_loser_repairs_the_alias_of_a_winner_that_was_killed(home: Settings, approve: Approve) -> None:
    first, second, third = approve(home, 1, None), approve(home, 2, 1), approve(home, 3, 1)
    promote(first.settings, "flights", **first.arguments)
    promote(third.settings, "flights", **third.arguments)
    set_champion_alias(home, "flights", 1)
    assert promote(second.settings, "flights", **second.arguments) == "superseded"
    assert champion_alias(home, "flights") == 3


@pytest.mark.parametrize("decision", ["hold", "reject"])
def test_a_model_that_the_gate_refused_is_refused(embedded: Settings, approve: Approve, decision: str) -> None:
    first = approve(embedded, 1, None)
    first.write_verdict(None, decision=decision)
    with pytest.raises(GateRefused):
        promote(first.settings, "flights", **first.arguments)
    untouched(embedded, state="refused")


def test_a_pass_is_no_promotion(embedded: Settings, approve: Approve) -> None:
    first = approve(embedded, 1, None)
    first.write_verdict(None, decision="pass")
    with pytest.raises(GateRefused, match="did not decide to promote"):
        promote(first.settings, "flights", **first.arguments)
    untouched(embedded, state="refused")


@pytest.mark.parametrize("version", ["absent", "1", True, 1.5, 0, -1, []])
def test_a_verdict_must_say_what_it_compared_with(embedded: Settings, approve: Approve, version: Any) -> None:
    first = approve(embedded, 1, None)
    first.write_verdict(version)
    with pytest.raises(DataError, match="which champion the gate compared with"):
        promote(first.settings, "flights", **first.arguments)
    untouched(embedded)


def test_a_verdict_about_another_model_or_gate_is_refused(embedded: Settings, approve: Approve) -> None:
    first, second = approve(embedded, 1, None), approve(embedded, 2, None)
    for changes in ({"subject": read_card(second.model).model}, {"gate": "validate"}):
        first.write_verdict(None, **changes)
        with pytest.raises(DataError, match="does not judge this"):
            promote(first.settings, "flights", **first.arguments)
    untouched(embedded)


def test_a_bento_of_another_model_is_refused(embedded: Settings, approve: Approve) -> None:
    first, second = approve(embedded, 1, None), approve(embedded, 2, None)
    with pytest.raises(DataError) as raised:
        promote(first.settings, "flights", **(first.arguments | {"bento": second.bento}))
    assert raised.value.measured == file_digest(second.bento)[:12]
    assert raised.value.allowed == file_digest(first.bento)[:12]
    untouched(embedded)


def test_a_kept_archive_that_is_gone_is_refused(embedded: Settings, approve: Approve) -> None:
    first = approve(embedded, 1, None)
    (embedded.bentos / f"{file_digest(first.bento)}.tar").unlink()
    with pytest.raises(DataError, match="kept archive"):
        promote(first.settings, "flights", **first.arguments)
    untouched(embedded)


def test_a_changed_bundle_and_another_use_case_are_refused(embedded: Settings, approve: Approve) -> None:
    first = approve(embedded, 1, None)
    with pytest.raises(DataError, match="another use case"):
        promote(first.settings, "taxi", **first.arguments)
    (first.model / ENCODING).write_text('{"columns": []}')
    with pytest.raises(DataError, match="not the one its card describes"):
        promote(first.settings, "flights", **first.arguments)
    untouched(embedded)


def test_a_version_that_was_deleted_is_not_promoted(home: Settings, approve: Approve) -> None:
    first = approve(home, 1, None)
    delete_version(home, 1)
    with pytest.raises(StorageFailed, match="version"):
        promote(first.settings, "flights", **first.arguments)
    assert champion(home) is None
    assert list_promotions(open_ledger(home.ledger_url), "flights") == []


def test_a_run_that_was_declared_dead_promotes_nothing(home: Settings, approve: Approve) -> None:
    first = approve(home, 1, None)
    finish_run(open_ledger(home.ledger_url), "run-1", "failed", reason="lease expired")
    with pytest.raises(LedgerError, match="has ended and promotes nothing"):
        promote(first.settings, "flights", **first.arguments)
    assert champion(home) is None
    assert champion_alias(home, "flights") is None


def test_repair_brings_the_alias_to_the_champion_and_is_quiet_when_it_is_there(
    home: Settings, approve: Approve
) -> None:
    assert repair_mirror(home) == []
    first, second = approve(home, 1, None), approve(home, 2, 1)
    promote(first.settings, "flights", **first.arguments)
    promote(second.settings, "flights", **second.arguments)
    assert repair_mirror(home) == []
    set_champion_alias(home, "flights", 1)
    assert repair_mirror(home) == ["flights"]
    assert champion_alias(home, "flights") == 2
    assert repair_mirror(home) == []


def test_repair_goes_on_past_a_version_that_was_deleted(
    embedded: Settings, approve: Approve, caplog: pytest.LogCaptureFixture
) -> None:
    first = approve(embedded, 1, None)
    promote(first.settings, "flights", **first.arguments)
    delete_version(embedded, 1)
    assert repair_mirror(embedded) == []
    assert "alias of flights does not follow the ledger" in caplog.text


def test_the_component_promotes(embedded: Settings, approve: Approve, monkeypatch: pytest.MonkeyPatch) -> None:
    first = approve(embedded, 1, None)
    environment = {
        "HOME": embedded.home,
        "LEDGER_URL": embedded.ledger_url,
        "RUN_KEY": "run-1",
        "FEATURE_REPO": embedded.feature_repo,
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"DRIFTLINE_{name}", str(value))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    answer = promote_step.python_func(
        use_case="flights",
        serving_image="",
        bento=dsl.Artifact(uri=str(first.bento)),
        model=dsl.Model(uri=str(first.model)),
        verdict=dsl.Artifact(uri=str(first.verdict)),
    )
    assert answer == "promoted"
    assert champion_alias(embedded, "flights") == 1


def untouched(settings: Settings, *, state: str = "running") -> None:
    """Require that nothing was promoted, recorded or tagged, and that the run is in `state`; a refusal ends it."""
    assert champion(settings) is None
    assert list_promotions(open_ledger(settings.ledger_url), "flights") == []
    assert champion_alias(settings, "flights") is None
    assert "gate.status" not in tags(settings, 1)
    run = read_run(open_ledger(settings.ledger_url), "run-1")
    assert run is not None
    assert (run.state, run.failed_step) == (state, "promote" if state == "refused" else "")
