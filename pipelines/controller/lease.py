"""Who leads: a Lease of Kubernetes, compared and swapped by its resource version.

As client-go's leader election has it: a candidate waits until the Lease has not changed for its whole duration, by the
candidate's own monotonic clock, so that no two clocks are compared. A holder counts itself as the leader for two thirds
of that time after the moment at which it *asked* for its last renewal, so it stops before anybody else begins. That two
lead for a moment (a process stopped in the middle of a round) is harmless all the same: everything that the leader
starts is once by itself. docs/adr/0019.
"""

import logging
import time
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

log = logging.getLogger(__name__)

LEASE_NAME = "driftline-controller"
LEASE_SECONDS = 15
RENEW_SECONDS = 2.0
TIMEOUT_SECONDS = 4
LEADS_FOR = 2 / 3
"""Of the Lease's duration."""


class Held(NamedTuple):
    """What a Lease says; `version` changes with every change."""

    holder: str
    seconds: float
    version: str


def next_act(held: Held, *, identity: str, unchanged_seconds: float) -> Literal["renew", "take", "wait"]:
    """Return what a candidate does with a Lease that it has seen unchanged for so long."""
    if held.holder == identity:
        return "renew"
    if not held.holder or unchanged_seconds >= held.seconds:
        return "take"
    return "wait"


class KubernetesLease:
    """Candidacy of this process."""

    def __init__(self, client: Any, namespace: str, identity: str, *, seconds: int = LEASE_SECONDS) -> None:
        """Prepare; `client` is an `ApiClient` of the package kubernetes, `identity` nobody else's, ever."""
        from kubernetes.client import CoordinationV1Api

        self._api, self._namespace, self.identity = CoordinationV1Api(client), namespace, identity
        self._seconds = seconds
        self._seen: tuple[Held | None, float] = (None, 0.0)
        self._until = 0.0

    def is_held(self) -> bool:
        """Return whether this process leads, by what it knows; asks nobody."""
        return time.monotonic() < self._until

    def stand(self) -> None:
        """Renew the Lease, take it if it is free, or look at it. Raises what the Kubernetes API answers."""
        from kubernetes.client.exceptions import ApiException

        asked = time.monotonic()
        try:
            lease = self._read()
            held = Held(
                lease.spec.holder_identity or "",
                lease.spec.lease_duration_seconds or self._seconds,
                lease.metadata.resource_version,
            )
            if held != self._seen[0]:
                self._seen = (held, asked)
            act = next_act(held, identity=self.identity, unchanged_seconds=asked - self._seen[1])
            if act == "wait":
                self._until = 0.0
                return
            self._replace(lease, took=act == "take")
        except ApiException as error:
            if error.status != 409:  # noqa: PLR2004 - somebody else was faster, which the next look shows
                raise
            return
        if not self.is_held():
            log.warning("%s leads from now on", self.identity)
        self._until = asked + self._seconds * LEADS_FOR

    def try_to_let_go(self) -> None:
        """Give the Lease back, so that another process need not wait for its end; if that fails, it waits."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        if not self.is_held():
            return
        self._until = 0.0
        try:
            lease = self._read()
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = ""
                self._api.replace_namespaced_lease(LEASE_NAME, self._namespace, lease, _request_timeout=TIMEOUT_SECONDS)
        except (ApiException, HTTPError) as error:
            log.warning("the Lease was not given back and ends by itself: %s", error)

    def _read(self) -> Any:
        from kubernetes.client import V1Lease, V1LeaseSpec, V1ObjectMeta
        from kubernetes.client.exceptions import ApiException

        try:
            return self._api.read_namespaced_lease(LEASE_NAME, self._namespace, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status != 404:  # noqa: PLR2004
                raise
        free = V1Lease(metadata=V1ObjectMeta(name=LEASE_NAME), spec=V1LeaseSpec(holder_identity=""))
        return self._api.create_namespaced_lease(self._namespace, free, _request_timeout=TIMEOUT_SECONDS)

    def _replace(self, lease: Any, *, took: bool) -> None:
        """Write ourselves into a Lease; the API refuses with 409 when it has changed since it was read."""
        now = datetime.now(UTC)
        spec = lease.spec
        if took:
            spec.acquire_time = now
            spec.lease_transitions = (spec.lease_transitions or 0) + 1
        spec.holder_identity, spec.lease_duration_seconds, spec.renew_time = self.identity, self._seconds, now
        self._api.replace_namespaced_lease(LEASE_NAME, self._namespace, lease, _request_timeout=TIMEOUT_SECONDS)
