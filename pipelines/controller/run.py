"""The controller: which parts it has, and how it begins and ends."""

import logging
import signal
import socket
import threading
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError
from components.core.mirror import mirror_changed
from components.core.settings import Settings
from components.core.tracking_client import is_embedded
from pipelines.controller.exposition import Exposition
from pipelines.controller.kubernetes_access import Kubernetes, find_kubernetes
from pipelines.controller.lease import LEASE_SECONDS, RENEW_SECONDS, KubernetesLease
from pipelines.controller.own_metrics import SOURCE, own_samples
from pipelines.controller.rounds import Part, Rounds
from pipelines.controller.serve import serve

log = logging.getLogger(__name__)

END_SECONDS = 4.0
LOOK_SHARE = 0.25
"""Of a round's pause, for what only looks."""


class Options(BaseModel):
    """What the command line says."""

    model_config = ConfigDict(frozen=True)

    port: int = 8080
    lease_namespace: str = ""
    """Empty: the namespace that this process is at home in."""
    schedules_namespace: str = ""
    serving_namespaces: tuple[str, ...] = ()
    seconds: float = 60.0


class Controller:
    """All parts with what they share."""

    def __init__(self, settings: Settings, options: Options) -> None:
        """Prepare; nothing runs yet. Raises ConfigError."""
        self.settings, self.options = settings, options
        self.exposition = Exposition()
        self.kubernetes = find_kubernetes(settings)
        self.lease: KubernetesLease | None = None
        if self.kubernetes is not None:
            namespace = options.lease_namespace or self.kubernetes.namespace
            identity = f"{socket.gethostname()}_{uuid4()}"
            self.lease = KubernetesLease(self.kubernetes.client, namespace, identity, seconds=LEASE_SECONDS)
        self.rounds = Rounds(self.parts(), is_leader=self.leads)

    def leads(self) -> bool:
        """Return whether this process acts; where there is no Kubernetes, it is alone."""
        return self.lease is None or self.lease.is_held()

    def parts(self) -> list[Part]:
        """Return the parts that have what they need; why another one is off is logged."""
        from pipelines.controller.ledger_metrics import look_at_ledger

        settings, kubernetes, exposition = self.settings, self.kubernetes, self.exposition
        seconds, look = self.options.seconds, self.options.seconds * LOOK_SHARE
        parts = [Part("ledger", look, lambda: look_at_ledger(settings, exposition), leader_only=False)]
        if self.lease is not None:
            parts.append(
                Part("lease", RENEW_SECONDS, self.lease.stand, leader_only=False, longest_seconds=RENEW_SECONDS)
            )
        if settings.kfp_host:
            parts += self._kfp_parts(seconds, look, kubernetes)
        else:
            log.warning("dispatch, schedules and kfp are off: DRIFTLINE_KFP_HOST is not set")
        if is_embedded(settings) and not settings.ledger_url.startswith("sqlite:"):
            log.warning("mirror is off: MLFLOW_TRACKING_URI is not set")
        else:
            parts.append(Part("mirror", seconds, lambda: mirror_changed(settings)))
        if settings.git_url:
            parts += self._git_parts(seconds, look, kubernetes)
        else:
            log.warning("releases and rollouts are off: DRIFTLINE_GIT_URL is not set")
        return parts

    def _kfp_parts(self, seconds: float, look: float, kubernetes: Kubernetes | None) -> list[Part]:
        from pipelines.controller.declared import Refused
        from pipelines.controller.dispatch import dispatch
        from pipelines.controller.kfp_metrics import look_at_kfp
        from pipelines.controller.schedules import SOURCE as SCHEDULES
        from pipelines.controller.schedules import apply_declared

        settings, exposition = self.settings, self.exposition
        parts = [
            Part("kfp", look, lambda: look_at_kfp(settings, exposition), leader_only=False),
            Part("dispatch", seconds, lambda: dispatch(settings)),
        ]
        if kubernetes is None:
            log.warning("schedules is off: there is no Kubernetes to read ConfigMaps from")
            return parts
        namespace = self.options.schedules_namespace or kubernetes.namespace

        told: set[Refused] = set()

        def schedules() -> None:
            apply_declared(settings, kubernetes.client, namespace, exposition, told)

        # Only the leader compares; what a former one said grows old.
        return [*parts, Part("schedules", seconds, schedules, rest=lambda: exposition.put(SCHEDULES, []))]

    def _git_parts(self, seconds: float, look: float, kubernetes: Kubernetes | None) -> list[Part]:
        from pipelines.controller.releases import Releases, Reverts

        parts = [Part("releases", seconds, Releases(self.settings).look)]
        namespaces = self.options.serving_namespaces
        if kubernetes is None or not namespaces:
            log.warning("rollouts is off: it needs Kubernetes and a --serving-namespace")
            return parts
        reverts = Reverts(self.settings, self.exposition)
        return [*parts, Part("rollouts", look, lambda: reverts.look(kubernetes.client, namespaces))]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return what is scraped."""
        self.exposition.put(SOURCE, own_samples(self.rounds, leads=self.leads()))
        return self.exposition.render(accept)

    def why_not_live(self) -> str:
        """Return what is wrong with this process so that only a restart mends it; empty: nothing."""
        lost = self.rounds.lost()
        return f"parts that do not go on: {', '.join(lost)}" if lost else ""

    def why_not_ready(self) -> str:
        """Return why this process cannot serve what it is there for; empty: it can."""
        standing = self.rounds.standings["ledger"]
        if standing.failures_in_a_row:
            return "the ledger cannot be read"
        return "" if standing.succeeded_at else "the ledger was not read yet"


def run_controller(settings: Settings, options: Options) -> int:
    """Run until SIGTERM or SIGINT and return 0.

    Whatever else is out of reach at the start is tried again. Raises ConfigError for a port that is taken and a
    kubeconfig that cannot be used.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller = Controller(settings, options)
    try:
        server = serve(
            options.port,
            metrics=controller.metrics,
            live=controller.why_not_live,
            ready=controller.why_not_ready,
        )
    except OSError as error:
        raise ConfigError(
            f"port {options.port} cannot be used", measured=error.strerror, next_step="choose another --port"
        ) from error
    log.warning("answering on port %d; parts: %s", server.server_port, ", ".join(controller.rounds.standings))
    controller.rounds.start()
    stop.wait()
    unfinished = controller.rounds.stop(END_SECONDS)
    if unfinished:
        log.warning("ending in the middle of: %s; another replica goes on from there", ", ".join(unfinished))
    if controller.lease is not None:
        controller.lease.try_to_let_go()
    server.shutdown()
    return 0
