"""Starting requested retrainings on the cluster that this step runs on."""

import logging

from components.core.kfp_api import KfpApi
from components.core.kfp_runs import require_version
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings
from components.retrain.dispatcher import KfpDispatcher, start_open

log = logging.getLogger(__name__)


def retrain(settings: Settings, use_case: str, *, decision: str, training: str) -> list[str]:
    """Start every open request of a use case with a pinned version of its training pipeline; return the run ids.

    Outside a cluster nothing is started: whoever ran the pipeline does that. Raises NotOnCluster when the version is
    not there, ClusterUnreachable, ClusterError, LedgerError; starting again is safe.
    """
    if not (settings.workflow and settings.kfp_host):
        where = "this run is no Workflow" if not settings.workflow else "DRIFTLINE_KFP_HOST is not set"
        log.info("decision %s: nothing is started here, since %s; `driftline dispatch` does", decision, where)
        return []
    api = KfpApi(settings)
    ledger = open_ledger(settings.ledger_url)
    pipeline = training.rpartition("-")[0]
    dispatcher = KfpDispatcher(api, ledger, version=lambda _model: require_version(api, pipeline, training))
    started = [attempt.run_id for attempt in start_open(ledger, dispatcher, model=use_case)]
    log.info("decision %s: started %s", decision, ", ".join(started) or "nothing, there is no open request to start")
    return started
