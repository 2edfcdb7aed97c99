"""What the controller says of itself: who leads, and how its parts do."""

from collections.abc import Iterator

from pipelines.controller.exposition import Sample
from pipelines.controller.rounds import Rounds

SOURCE = "controller"


def own_samples(rounds: Rounds, *, leads: bool) -> Iterator[Sample]:
    """Yield who leads, and for each part how often it failed and when it last ended well."""
    yield Sample("driftline_controller_leader", float(leads))
    for name, standing in rounds.standings.items():
        labels = {"part": name}
        yield Sample("driftline_controller_failures_total", standing.failures, labels)
        if standing.succeeded_at:
            at = standing.succeeded_at
            yield Sample("driftline_controller_last_success_timestamp_seconds", at, labels)
