"""From a promotion to a served model through Git alone: Argo CD syncs it, Argo Rollouts judges it, a revert undoes it.

The tests build on each other, in order: a first release, a change by hand, a good second release, a bad third one.
"""

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.digests import file_digest
from components.core.object_store import local_path, publish
from components.core.release import Release, parse_release, release_path, render_release
from components.core.settings import Settings

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
    kubectl("apply", "--server-side", "-f", "-", text=text)
    yield Watched(kubectl)
    for kind in ("applicationsets", "applications"):
        kubectl("-n", "argocd", "delete", f"{kind}.argoproj.io", "--all", "--wait", "--timeout=120s", check=False)
    kubectl("delete", "-f", "-", "--ignore-not-found", text=text)


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
    assert set(traffic.statuses) == {"200"}
    assert set(traffic.versions) == {1, 2}


def test_a_bad_model_is_aborted_and_a_revert_makes_git_true_again(
    released: str,
    address: str,
    question: dict[str, Any],
    callers: Any,
    stores: Settings,
    repository: Any,
    watched: Watched,
    wait_until: Wait,
    tmp_path: Path,
) -> None:
    before = watched.rollout("{.status.stableRS}")
    text = (repository.folder / RELEASE).read_text()
    good = parse_release(text, str(RELEASE))
    archive = failing_bento(local_path(stores, good.bento.uri), good.bento.tag, tmp_path / "bad.tar")
    kept = stores.bentos / f"{file_digest(archive)}.tar"
    kept.write_bytes(archive.read_bytes())
    publish(stores, kept)
    bento = {"tag": "flights:3-bad", "digest": kept.stem, "uri": good.bento.uri.replace(good.bento.digest, kept.stem)}
    bad = good.model_copy(update={"model_version": 3, "bento": good.bento.model_copy(update=bento)})
    (repository.folder / RELEASE).write_text(render_release(bad))
    repository.push("A model that fails half of its requests")
    with callers(address, question) as asked:
        wait_until(600, "the bad canary is aborted", lambda: watched.rollout("{.status.abort}") == "true")
        assert watched.analysis() == "Failed"
        wait_until(120, "only the good version runs", lambda: watched.versions() == {"2"})
        failed = asked.take()
        assert set(failed.statuses) == {"200", SERVER_ERROR}
        assert failed.statuses[SERVER_ERROR] < sum(failed.statuses.values()) / 2
        assert watched.rollout("{.status.stableRS}") == before
        wait_until(60, "and it is said", lambda: watched.application("{.status.health.status}") == "Degraded")
        repository.git("revert", "--no-edit", "HEAD")
        repository.git("push", "-q", "origin", "HEAD:main")
        wait_until(120, "Git says again what is served", lambda: watched.settled(repository.head()))
        time.sleep(3)
    assert (repository.folder / RELEASE).read_text() == text
    assert watched.rollout("{.status.stableRS}") == before
    traffic = asked.take()
    assert set(traffic.statuses) == {"200"}
    assert set(traffic.versions) == {2}


def failing_bento(archive: Path, tag: str, target: Path) -> Path:
    """Write a Bento that fails every second lookup, with a version of its own."""
    version = tag.partition(":")[2]
    edits = {
        "bento.yaml": (f"version: {version}", "version: 3-bad"),
        "src/components/serve/service.py": (
            "            values = dict(vars(request))\n",
            "            if time.time_ns() // 1000 % 2:\n"
            '                raise RuntimeError("a bug")\n'
            "            values = dict(vars(request))\n",
        ),
    }
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            if content is None:
                new.addfile(member)
                continue
            body = content.read()
            edit = edits.get(member.name.removeprefix("./"))
            if edit:
                assert edit[0].encode() in body, member.name
                body = body.replace(edit[0].encode(), edit[1].encode())
                member.size = len(body)
            new.addfile(member, io.BytesIO(body))
    return target
