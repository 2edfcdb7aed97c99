"""Who leads, on any interleaving of candidates that are slow, paused, killed and cut off from the API."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.controller.lease import LEADS_FOR, LEASE_SECONDS, RENEW_SECONDS, Held, next_act


@dataclass
class Server:
    """A Lease with compare-and-swap by version, as the Kubernetes API has it."""

    held: Held = field(default_factory=lambda: Held("", float(LEASE_SECONDS), "0"))

    def replace(self, version: str, holder: str) -> bool:
        if version != self.held.version:
            return False
        self.held = Held(holder, float(LEASE_SECONDS), str(int(version) + 1))
        return True


@dataclass
class Candidate:
    """A process; its own clock runs from an arbitrary zero."""

    identity: str
    zero: float
    seen: tuple[Held | None, float] = (None, 0.0)
    until: float = float("-inf")
    read: tuple[Held, float] | None = None

    def ask(self, server: Server, now: float) -> None:
        self.read = (server.held, now + self.zero)

    def act(self, server: Server) -> None:
        """Do what `KubernetesLease.stand` does with what was read, however long ago that was."""
        assert self.read is not None
        held, asked = self.read
        self.read = None
        if held != self.seen[0]:
            self.seen = (held, asked)
        if next_act(held, identity=self.identity, unchanged_seconds=asked - self.seen[1]) == "wait":
            self.until = float("-inf")
        elif server.replace(held.version, self.identity):
            self.until = asked + LEASE_SECONDS * LEADS_FOR

    def leads(self, now: float) -> bool:
        return now + self.zero < self.until


moves = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["ask", "act"]), st.floats(0, 8, allow_nan=False)), max_size=80
)


@settings(max_examples=400)
@given(moves=moves, zeros=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_never_do_two_lead(moves: list[tuple[int, str, float]], zeros: list[float]) -> None:
    server, now = Server(), 0.0
    candidates = [Candidate(f"c{n}", zero) for n, zero in enumerate(zeros)]
    for who, what, pause in moves:
        now += pause
        if what == "ask" or candidates[who].read is None:
            candidates[who].ask(server, now)
        else:
            candidates[who].act(server)
        assert sum(candidate.leads(now) for candidate in candidates) <= 1


@given(dead_at=st.floats(0, 30))
def test_a_dead_leader_is_replaced_within_lease_and_two_looks(dead_at: float) -> None:
    server, now = Server(), 0.0
    first, second = Candidate("a", 5.0), Candidate("b", -77.0)
    while now < dead_at + LEASE_SECONDS + 2 * RENEW_SECONDS + 0.01:
        for candidate in (first, second) if now <= dead_at else (second,):
            candidate.ask(server, now)
            candidate.act(server)
        now += RENEW_SECONDS
    assert second.leads(now - RENEW_SECONDS)
    assert server.held.holder == "b"


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    free = Held("", 15.0, "7")
    assert next_act(free, identity="a", unchanged_seconds=0) == "take"
    assert next_act(Held("b", 15.0, "7"), identity="a", unchanged_seconds=14.9) == "wait"
    assert next_act(Held("b", 15.0, "7"), identity="a", unchanged_seconds=15) == "take"
    assert next_act(Held("a", 15.0, "7"), identity="a", unchanged_seconds=99) == "renew"
