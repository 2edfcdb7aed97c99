"""Declared schedules become the recurring runs of a real KFP, and one of them fires."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ClusterError, NotOnCluster
from pipelines.schedules.compare import compare


def find_run(workspace: Any, recurring_run: str, seconds: float) -> Any:
    """Wait for the first run of a recurring run; None when none starts in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = workspace.api.call(
            "list runs", workspace.api.runs.run_service_list_runs, page_size=100, sort_by="created_at desc"
        )
        for run in runs.runs or []:
            if run.recurring_run_id == recurring_run:
                return run
        time.sleep(1)
    return None


def test_from_nothing_to_replaced_disabled_enabled_and_pruned(workspace: Any) -> None:
    workspace.declare(description="Predict every year", parameters={"as_of": "2013-04-01"})
    assert workspace.actions() == ["create"]
    assert workspace.apply() == ["create"]
    (first,) = workspace.existing()
    assert first.enabled
    recurring = workspace.api.call(
        "read", workspace.api.recurring_runs.recurring_run_service_get_recurring_run, first.id
    )
    assert recurring.pipeline_version_reference.pipeline_version_id
    assert recurring.runtime_config.parameters == {"as_of": "2013-04-01"}
    assert (recurring.no_catchup, recurring.max_concurrency) == (True, "1")
    assert recurring.description.splitlines()[0] == "Predict every year"
    assert workspace.apply() == ["unchanged"]
    assert [found.id for found in workspace.existing()] == [first.id]

    workspace.declare(description="Predict every year", version=workspace.versions[1], cron="0 0 0 2 1 *")
    _, changes = compare(workspace.settings, workspace.api, workspace.folder, images=Path("none"), prune=False)
    (change,) = [c for c in changes if c.name == workspace.name]
    assert {(d.field, d.old, d.new) for d in change.differences} == {
        ("version", workspace.versions[0], workspace.versions[1]),
        ("cron", "@yearly", "0 0 0 2 1 *"),
        ("parameters.as_of", "2013-04-01", None),
    }
    assert workspace.apply() == ["replace"]
    (second,) = workspace.existing()
    assert second.id != first.id
    assert second.enabled
    assert workspace.scheduled_workflows() == 1

    workspace.declare(
        description="Predict every year", version=workspace.versions[1], cron="0 0 0 2 1 *", enabled=False
    )
    assert workspace.apply() == ["disable"]
    assert [(found.id, found.enabled) for found in workspace.existing()] == [(second.id, False)]
    assert workspace.scheduled_workflows() == 0
    workspace.declare(description="Predict every year", version=workspace.versions[1], cron="0 0 0 2 1 *")
    assert workspace.apply() == ["enable"]
    assert workspace.enabled() == workspace.scheduled_workflows() == 1

    workspace.declare(f"{workspace.name}-other")
    workspace.undeclare(workspace.name)
    assert workspace.apply() == ["undeclared", "create"]
    assert workspace.actions(prune=True) == ["delete", "unchanged"]
    assert workspace.apply(prune=True) == ["delete", "unchanged"]
    assert [found.name for found in workspace.existing()] == [f"{workspace.name}-other"]


def test_what_people_made_in_the_ui_is_left_alone(workspace: Any) -> None:
    """Also a clone with the description of a managed one, and one of the schedule's own name."""
    workspace.declare()
    workspace.apply()
    (managed,) = workspace.existing()
    service = workspace.api.recurring_runs
    made = workspace.api.call("read", service.recurring_run_service_get_recurring_run, managed.id)
    theirs = []
    for name, description in ((f"Clone of {workspace.name}", made.description), (workspace.name, "by hand")):
        body = {
            "display_name": name,
            "description": description,
            "pipeline_version_reference": made.pipeline_version_reference.to_dict(),
            "trigger": {"cron_schedule": {"cron": "@yearly"}},
            "max_concurrency": "1",
            "mode": "DISABLE",
            "experiment_id": made.experiment_id,
            "runtime_config": {"parameters": {}},
        }
        new = workspace.api.call("create", service.recurring_run_service_create_recurring_run, body)
        theirs.append(new.recurring_run_id)
    try:
        workspace.declare(cron="0 0 0 2 1 *")
        assert workspace.apply(prune=True) == ["replace"]
        for one in theirs:
            workspace.api.call("read", service.recurring_run_service_get_recurring_run, one)
    finally:
        for one in theirs:
            workspace.api.call("delete", service.recurring_run_service_delete_recurring_run, one)


def test_without_a_version_it_runs_what_this_checkout_compiles_to(workspace: Any, images: Path) -> None:
    """The server gets the version if it lacks it; another version, named or compiled, is a replacement."""
    workspace.declare(version="")
    assert workspace.apply(images=images) == ["create"]
    (first,) = workspace.existing()
    assert first.has["version"].startswith(f"{workspace.name}-")
    assert first.has["version"] not in workspace.versions
    assert workspace.apply(images=images) == ["unchanged"]
    workspace.declare(version=workspace.versions[0])
    assert workspace.apply() == ["replace"]


def test_an_unknown_version_stops_everything_before_anything_is_changed(workspace: Any) -> None:
    workspace.declare()
    workspace.declare(f"{workspace.name}-z", version=f"{workspace.name}-000000000000")
    with pytest.raises(NotOnCluster, match="000000000000"):
        workspace.apply()
    assert workspace.existing() == []


def test_a_cron_that_only_the_server_refuses_changes_nothing(workspace: Any) -> None:
    """The server's own check comes before the running one is touched."""
    workspace.declare()
    workspace.apply()
    (before,) = workspace.existing()
    resolved, changes = None, None
    workspace.declare(cron="0 0 0 2 1 *")
    resolved, changes = compare(workspace.settings, workspace.api, workspace.folder, images=Path("none"), prune=False)
    wanted = resolved[workspace.name].wanted
    broken = wanted.model_copy(update={"spec": wanted.spec.model_copy(update={"cron": "0 0 0 99 1 *"})})
    from pipelines.schedules.apply import apply_change

    (change,) = [c for c in changes if c.name == workspace.name]
    unusable = resolved[workspace.name].model_copy(update={"wanted": broken})
    quiet = change.model_copy(update={"current": None})
    with pytest.raises(ClusterError, match="create recurring run"):
        apply_change(workspace.api, quiet, unusable, notify=lambda _: None, lock_seconds=3)
    assert workspace.existing() == [before]


def test_one_fires_with_its_version_and_its_run_survives_the_replacement(workspace: Any) -> None:
    workspace.declare(cron="*/15 * * * * *", parameters={"as_of": "2013-05-01"})
    workspace.apply()
    (first,) = workspace.existing()
    run = find_run(workspace, first.id, 120)
    assert run is not None, "no run started in two minutes"
    workspace.declare(version=workspace.versions[1])
    assert workspace.apply() == ["replace"]
    (second,) = workspace.existing()
    assert second.id != first.id
    deadline = time.monotonic() + 180
    while True:
        run = workspace.api.call("read run", workspace.api.runs.run_service_get_run, run.run_id)
        if run.state in ("SUCCEEDED", "FAILED", "CANCELED") or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert run.state == "SUCCEEDED"
    assert run.runtime_config.parameters == {"as_of": "2013-05-01"}
    assert find_run(workspace, second.id, 3) is None, "a yearly schedule must not start on the day it is made"


def test_switched_on_again_it_does_not_start_what_it_missed(workspace: Any) -> None:
    """In place, KFP's controller would start the newest tick that was missed while it was off, at once."""
    cron = f"0 {time.gmtime(time.time() + 60).tm_min} * * * *"
    workspace.declare(cron=cron, enabled=False)
    workspace.apply()
    time.sleep(75)
    workspace.declare(cron=cron)
    assert workspace.apply() == ["enable"]
    (on,) = workspace.existing()
    assert find_run(workspace, on.id, 40) is None


def test_the_command_tells_by_its_exit_code_and_asks_nobody(workspace: Any, tmp_path: Path) -> None:
    program = shutil.which("driftline", path=str(Path(sys.executable).parent))
    assert program
    workspace.declare()
    environment = {
        **os.environ,
        "DRIFTLINE_KFP_HOST": workspace.settings.kfp_host,
        "DRIFTLINE_FEATURE_REPO": str(workspace.settings.feature_repo),
        "DRIFTLINE_HOME": str(tmp_path),
    }

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [program, "schedules", *arguments, "--dir", str(workspace.folder)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    first = call("plan")
    assert first.returncode == 4, first.stderr
    assert f"+ {workspace.name}" in first.stdout
    assert "next: " in first.stdout
    assert call("apply").returncode == 2
    assert workspace.existing() == []
    done = call("apply", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert '"action": "create"' in done.stdout
    assert call("plan").returncode == 0
