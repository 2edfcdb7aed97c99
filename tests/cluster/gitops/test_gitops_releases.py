"""From a promotion to a served model through Git alone: Argo CD syncs it, Argo Rollouts judges it, a revert undoes it.

The tests build on each other, in order: a first release, a change by hand, a good second release, a bad third one.
"""

import logging
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.core.champion import require_champion
from components.core.ledger.champions import list_promotions
from components.core.ledger.engine import open_ledger
from components.core.release import Release, parse_release, release_path
from components.core.settings import Settings
from components.core.tracking import champion_alias
from pipelines.releases.trace import trace_run

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]
USE_CASE, NAMESPACE, SERVICE = "flights", "ml-flights", "flights-bento-service"
RELEASE = release_path(USE_CASE, "local")
SECOND_INSTANT = "2013-07-03T00:00:00+00:00"
SERVER_ERROR = "500"
# One node and short tests: small pods, a canary that is judged within a minute.
VALUES = {
    "replicas": 2,
    "resources": {"cpu": "50m", "memory": "1Gi"},
    "strategy": {"kind": "canary", "canary": {"steps": [{"weight": 50}]}},
    "analysis": {
        "initialDelaySeconds": 20,
        "intervalSeconds": 5,
        "windowSeconds": 30,
        "successes": 2,
        "minimumRequests": 50,
        "maximumP99Seconds": 5,
    },
    "metrics": {"scrape": "annotations"},
}
promote_a_bad_model = runpy.run_path(str(Path(__file__).with_name("bad_model.py")))["promote_a_bad_model"]
CommandLine = Callable[..., str]
Wait = Callable[[float, str, Callable[[], bool]], float]


class Watched:
    """The application and the rollout of the served model, as the cluster has them."""

    def __init__(self, kubectl: CommandLine) -> None:
        self._kubectl = kubectl

    def application(self, path: str) -> str:
        name = ("-n", "argocd", "get", "applications.argoproj.io", f"serving-{USE_CASE}")
        return self._kubectl(*name, "-o", f"jsonpath={path}", check=False)

    def rollout(self, path: str) -> str:
        name = ("-n", NAMESPACE, "get", "rollouts.argoproj.io", SERVICE)
        return self._kubectl(*name, "-o", f"jsonpath={path}", check=False)

    def settled(self, commit: str) -> bool:
        state = self.application("{.status.sync.status} {.status.health.status} {.status.sync.revision}")
        return state == f"Synced Healthy {commit}"

    def analysis(self) -> str:
        """Return the phase of the newest analysis."""
        newest = ("--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[-1:].status.phase}")
        return self._kubectl("-n", NAMESPACE, "get", "analysisruns.argoproj.io", *newest, check=False)

    def versions(self) -> set[str]:
        """Return the model versions of the pods that run."""
        path = r'{range .items[*]}{.metadata.annotations.driftline\.dev/model-version}{"\n"}{end}'
        running = ("--field-selector=status.phase=Running", "-o", f"jsonpath={path}")
        return set(self._kubectl("-n", NAMESPACE, "get", "pods", *running).split())


@pytest.fixture(scope="module")
def watched(kubectl: CommandLine, repository: Any) -> Iterator[Watched]:
    """Install our projects and ApplicationSets and yield what they make; all of it is deleted at the end."""
    (repository.folder / "infra/usecases/flights/envs/local/values.yaml").write_text(yaml.safe_dump(VALUES))
    repository.push("Values of flights on this cluster")
    wanted = [
        each
        for each in yaml.safe_load_all(kubectl("kustomize", str(repository.folder / "infra/clusters/local")))
        if each["kind"] == "AppProject" or (each["kind"], each["metadata"]["name"]) == ("ApplicationSet", "serving")
    ]
    assert {each["kind"] for each in wanted} == {"AppProject", "ApplicationSet"}
    text = yaml.safe_dump_all(wanted)
    ours = ("-n", "argocd", "get", "applicationsets,applications,appprojects", "-o", "name")
    before = kubectl(*ours)
    kubectl("apply", "--server-side", "-f", "-", text=text)
    yield Watched(kubectl)
    for kind in ("applicationsets", "applications"):
        kubectl("-n", "argocd", "delete", f"{kind}.argoproj.io", "--all", "--wait", "--timeout=120s", check=False)
    kubectl("delete", "-f", "-", "--ignore-not-found", text=text)
    assert kubectl(*ours) == before


@pytest.fixture(scope="module")
def address(kubectl: CommandLine, watched: Watched, released: str) -> str:
    """Return where the service answers, from this machine."""
    assert released
    own = kubectl("-n", NAMESPACE, "get", "service", SERVICE, "-o", "jsonpath={.spec.clusterIP}")
    return f"http://{own}:3000"


@pytest.fixture(scope="module")
def released(first_release: Release, repository: Any, watched: Watched, wait_until: Wait) -> str:
    """Wait until the cluster serves the first model, and return the commit."""
    assert first_release.model_version == 1
    commit: str = repository.head()
    wait_until(300, "the promoted model is served", lambda: watched.settled(commit))
    return commit


def test_a_promotion_is_served_without_a_hand(
    released: str, address: str, question: dict[str, Any], callers: Any, watched: Watched
) -> None:
    with callers(address, question) as asked:
        time.sleep(5)
    traffic = asked.take()
    assert set(traffic.statuses) == {"200"}
    assert set(traffic.versions) == {1}
    assert watched.versions() == {"1"}


def test_what_is_changed_by_hand_is_put_back(released: str, kubectl: CommandLine, wait_until: Wait) -> None:
    path = "jsonpath={.spec.template.spec.terminationGracePeriodSeconds}"
    image = ("-n", NAMESPACE, "get", "rollouts.argoproj.io", SERVICE, "-o", path)
    before = kubectl(*image)
    change = '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1}}}}'
    kubectl("-n", NAMESPACE, "patch", "rollouts.argoproj.io", SERVICE, "--type=merge", "-p", change)
    kubectl("-n", NAMESPACE, "delete", "poddisruptionbudgets", "--all")
    wait_until(60, "the change is undone", lambda: kubectl(*image) == before)
    there = ("-n", NAMESPACE, "get", "poddisruptionbudgets", "-o", "name")
    wait_until(60, "the deleted object is back", lambda: kubectl(*there) != "")


def test_a_better_model_is_a_canary_first_and_no_request_fails(
    released: str,
    address: str,
    question: dict[str, Any],
    callers: Any,
    driftline: CommandLine,
    repository: Any,
    watched: Watched,
    wait_until: Wait,
) -> None:
    driftline("run", "training", "--use-case", USE_CASE, "--as-of", SECOND_INSTANT)
    commit = repository.pull()
    assert commit != released
    with callers(address, question) as asked:
        wait_until(180, "both versions answer", lambda: watched.versions() == {"1", "2"})
        wait_until(600, "the canary is promoted", lambda: watched.settled(commit) and watched.versions() == {"2"})
    traffic = asked.take()
    assert watched.analysis() == "Successful"
    log.info("%s while the better version came", traffic)
    assert set(traffic.statuses) == {"200"}
    assert set(traffic.versions) == {1, 2}


def test_a_bad_model_is_aborted_and_the_controller_takes_it_back(
    released: str,
    address: str,
    question: dict[str, Any],
    callers: Any,
    stores: Settings,
    repository: Any,
    watched: Watched,
    controller: Path,
    wait_until: Wait,
    tmp_path: Path,
) -> None:
    """The whole chain: the controller commits a promotion that its step could not commit, and later its revert."""
    before, text = watched.rollout("{.status.stableRS}"), (repository.folder / RELEASE).read_text()
    good = parse_release(text, str(RELEASE))
    second = repository.pull()
    bad = promote_a_bad_model(stores, good, tmp_path / "bad.tar")
    assert (champion(stores), champion_alias(stores, USE_CASE)) == (3, 3)
    wait_until(90, "the controller has committed the release", lambda: repository.pull() != second)
    third = repository.head()
    assert parse_release((repository.folder / RELEASE).read_text(), str(RELEASE)) == bad
    with callers(address, question) as asked:
        wait_until(600, "the bad canary is aborted", lambda: watched.rollout("{.status.abort}") == "true")
        assert watched.analysis() == "Failed"
        wait_until(90, "the controller has opened the revert", lambda: repository.pull() != third)
        revert = repository.head()
        wait_until(180, "Git says again what is served", lambda: watched.settled(revert))
        wait_until(180, "only the good version runs", lambda: watched.versions() == {"2"})
        failed = asked.take()
        assert set(failed.statuses) == {"200", SERVER_ERROR}
        assert failed.statuses[SERVER_ERROR] < sum(failed.statuses.values()) / 2
        wait_until(90, "the ledger's champion is back", lambda: champion(stores) == 2)
        wait_until(90, "MLflow's alias is back", lambda: champion_alias(stores, USE_CASE) == 2)
        asked.take()
        time.sleep(10)
    traffic = asked.take()
    log.info("%s while the bad version was tried, %s afterwards", failed, traffic)
    assert set(traffic.statuses) == {"200"}
    assert set(traffic.versions) == {2}
    assert watched.rollout("{.status.stableRS}") == before
    # Once, by the controller's key, and the release is what it was.
    assert repository.pull() == revert
    assert repository.git("rev-list", "--count", f"{third}..{revert}") == "1"
    assert repository.git("log", "-1", "--format=%s", revert) == "Revert flights from 3 to 2 in local"
    for commit in (third, revert):
        assert signer(repository, commit, stores) == "Promotions <promotions@example.com>"
    assert (repository.folder / RELEASE).read_text() == text
    assert [line.outcome for line in list_promotions(open_ledger(stores.ledger_url), USE_CASE)][-1] == "reverted"
    (traced,) = trace_run(stores, bad.run_id)
    assert (traced.state, traced.commit, traced.ended_by, traced.named) == ("reverted", third, revert, 2)
    assert scraped(controller)["driftline_reverts_opened_total"] == 1
    assert "Traceback" not in controller.read_text()


@pytest.fixture
def controller(stores: Settings, tmp_path: Path, watched: Watched) -> Iterator[Path]:
    """Run the real controller against the real cluster and yield its log."""
    assert stores.git_signing_key
    assert watched
    program = str(Path(sys.executable).with_name("driftline"))
    where = ["--lease-namespace", NAMESPACE, "--serving-namespace", NAMESPACE, "--seconds", "15"]
    output = tmp_path / "controller.log"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [program, "controller", "--port", "0", *where], cwd=tmp_path, stdout=stream, stderr=stream
        )
    try:
        yield output
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, output.read_text()
    finally:
        process.kill()
        process.wait(30)
        log.info("the controller said:\n%s", output.read_text()[-4000:])


def scraped(controller: Path) -> dict[str, float]:
    """Return what the controller exports of this use case, by name."""
    port = re.search(r"answering on port (\d+)", controller.read_text())
    assert port
    text = httpx.get(f"http://127.0.0.1:{port[1]}/metrics", timeout=10).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("use_case") == USE_CASE
    }


def champion(stores: Settings) -> int:
    return require_champion(stores, USE_CASE).version


def signer(repository: Any, commit: str, stores: Settings) -> str:
    """Return whose good signature a commit has, by a keyring that knows the promotions' key alone."""
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet"]
        subprocess.run([*gpg, "--import", str(stores.git_signing_key)], check=True, capture_output=True)
        program = Path(home) / "program"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {home} "$@"\n')
        program.chmod(0o700)
        told: str = repository.git("-c", f"gpg.program={program}", "log", "-1", "--format=%G? %GS", commit)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    # U: good, by a key that this keyring holds and nobody has signed.
    assert told[:2] in ("G ", "U "), told
    return told[2:]
