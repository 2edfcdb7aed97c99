"""Feast's feature server for online reads, over HTTP and without its endpoints that write."""

import logging
from typing import Any

from components.core.errors import FeatureError
from components.core.settings import Settings
from components.features.store import open_store

logger = logging.getLogger(__name__)

READING = frozenset({"/get-online-features", "/health"})
"""What is kept of Feast's feature server (feast 0.67, `feature_server.get_app`). It asks nobody who he is, and its
`/push`, `/write-to-online-store` and `/materialize` would let every caller change what models are given."""
REGISTRY_SECONDS = 60
"""After so long applied definitions are seen."""


def serve_online_features(settings: Settings, use_case: str, *, host: str, port: int, metrics_port: int) -> None:
    """Answer online lookups of a use case until SIGTERM; metrics of Feast are on a port of their own.

    Raises FeatureError when the registry is out of reach or knows no view of the use case.
    """
    store = open_store(settings, use_case)
    if not store.list_feature_views():
        raise FeatureError(
            f"the registry has no feature view of {use_case}",
            next_step=f"run `driftline features apply --use-case {use_case}` on the same registry",
        )
    import uvicorn
    from feast import metrics

    metrics.start_metrics_server(store, port=metrics_port, metrics_config=metrics.build_metrics_flags(None))
    logger.warning("answering lookups of %s on port %d", use_case, port)
    uvicorn.run(reading_app(store), host=host, port=port, access_log=False, log_level="warning")


def reading_app(store: Any) -> Any:
    """Return Feast's application with nothing but online reads and the health check."""
    from feast.feature_server import get_app

    app = get_app(store, REGISTRY_SECONDS)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") in READING]
    return app
