"""The command line as a person meets it: exit codes, messages with a next step, JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.ledger.engine import migrate
from components.core.settings import Settings

ROOT = Path(__file__).parents[3]


def driftline(settings: Settings, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *words],
        cwd=ROOT,
        env={**os.environ, "DRIFTLINE_HOME": str(settings.home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_command_with_its_purpose(settings: Settings) -> None:
    from pipelines.cli import COMMANDS

    done = driftline(settings, "--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "training"], "Missing option '--use-case'"),
        (["nosuch"], "No such command 'nosuch'"),
        (["run", "training", "--use-case", "nosuch"], "no such use case"),
        (["run", "training", "--use-case", "wind", "--param", "gate.x=1"], "SECTION.KEY=VALUE"),
        (["why", "nosuch"], "no such run"),
        (["runs", "rerun", "nosuch", "train"], "no such recorded step"),
        (["new", "Bad-Name"], "not a use case name"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_allowed(settings: Settings, words: list[str], message: str) -> None:
    done = driftline(settings, *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_parameter_that_is_no_such_key_is_refused_before_anything_runs(settings: Settings) -> None:
    done = driftline(settings, "run", "training", "--use-case", "wind", "--param", "evaluate.margn=0.1")
    assert done.returncode == 2, done.stderr
    assert "evaluate.margn: unknown key, did you mean 'margin'?" in done.stderr
    assert not settings.runs.exists()


def test_an_instant_that_is_none_is_refused_before_anything_runs(settings: Settings) -> None:
    done = driftline(settings, "run", "training", "--use-case", "wind", "--as-of", "april")
    assert done.returncode == 2, done.stderr
    assert "'april'" in done.stderr
    assert not settings.runs.exists()


def test_serving_without_a_champion_says_how_to_get_one(settings: Settings) -> None:
    migrate(settings.ledger_url)
    done = driftline(settings, "serve", "--use-case", "wind")
    assert done.returncode == 1
    assert "driftline run training --use-case wind" in done.stderr


def test_a_home_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    done = driftline(settings, "run", "training", "--use-case", "wind", DRIFTLINE_HOME=str(blocked))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert str(blocked) in done.stderr
    assert "next step" in done.stderr
    doctor = driftline(settings, "doctor", "--json", DRIFTLINE_HOME=str(blocked))
    assert doctor.returncode == 1
    home = next(check for check in json.loads(doctor.stdout) if check["name"] == "home")
    assert home["state"] == "problem"
    assert "DRIFTLINE_HOME" in home["mend"]


def test_doctor_finds_this_machine_usable(settings: Settings) -> None:
    done = driftline(settings, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert checks["kfp"]["found"] == "2.17.0"
    assert "wind" in checks["use cases"]["found"]


def test_doctor_names_a_ledger_of_another_schema(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    Path(settings.ledger_url.removeprefix("sqlite:///")).write_text("no database")
    checks = {c["name"]: c for c in json.loads(driftline(settings, "doctor", "--json").stdout)}
    assert checks["ledger"]["state"] == "problem"


def test_secrets_in_addresses_are_not_shown(settings: Settings) -> None:
    done = driftline(
        settings,
        "doctor",
        DRIFTLINE_ONLINE_STORE_URL="redis://:hunter2@127.0.0.1:1/0",
        MLFLOW_TRACKING_URI="https://user:hunter2@127.0.0.1:1",
        DRIFTLINE_LEDGER_URL="postgresql+psycopg://user:hunter2@127.0.0.1:1/x",
    )
    assert "hunter2" not in done.stdout + done.stderr
    assert "127.0.0.1" in done.stdout


def test_new_makes_a_use_case_that_compiles(settings: Settings, tmp_path: Path) -> None:
    from pipelines.catalog import read_case
    from pipelines.scaffold import create_use_case

    folder = create_use_case(tmp_path, "rain", "weather-team")
    assert read_case(tmp_path, "rain").use_case.owner == "weather-team"
    assert not [p for p in folder.rglob("*") if p.is_file() and "$name" in p.read_text()]
    done = driftline(settings, "new", "rain", DRIFTLINE_FEATURE_REPO=str(tmp_path))
    assert done.returncode == 2
    assert "the folder exists" in done.stderr
