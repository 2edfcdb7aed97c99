"""Which Rollouts are aborted canaries of a release, and that one revert that fails holds up no other."""

from typing import Any

import pytest

from pipelines.controller.rollouts import Aborted, aborted_release

MESSAGE = 'RolloutAborted: Rollout aborted update to revision 2: Metric "errors" assessed Failed'


def rollout(**update: Any) -> dict[str, Any]:
    """Return a Rollout as Argo Rollouts 1.9 leaves it after an aborted canary, without what is not read."""
    known: dict[str, Any] = {
        "metadata": {
            "name": "birds",
            "namespace": "ml-birds",
            "generation": 2,
            "labels": {"driftline.dev/use-case": "birds"},
        },
        "spec": {"template": {"metadata": {"annotations": {"driftline.dev/model-version": "7"}}}},
        "status": {"abort": True, "observedGeneration": "2", "phase": "Degraded", "message": MESSAGE},
    }
    for path, value in update.items():
        *parents, last = path.split("__")
        target = known
        for parent in parents:
            target = target[parent]
        target[last] = value
    return known


def test_an_aborted_canary_tells_release_and_reason() -> None:
    assert list(aborted_release(rollout())) == [Aborted("birds", 7, MESSAGE)]


@pytest.mark.parametrize(
    "update",
    [
        {"status__abort": False},
        {"status": {"observedGeneration": "2", "phase": "Healthy"}},
        {"status": {}},
        {"status__observedGeneration": "1"},  # Git has moved on: what is said is about the release before
        {"metadata__labels": {}},
        {"spec__template__metadata": {}},
        {"spec__template__metadata__annotations": {"driftline.dev/model-version": "latest"}},
        {"spec": {}},
    ],
)
def test_everything_else_is_left_alone(update: dict[str, Any]) -> None:
    assert list(aborted_release(rollout(**update))) == []


def test_a_long_message_is_cut() -> None:
    (found,) = aborted_release(rollout(status__message="x" * 5000))
    assert len(found.reason) == 500
