"""Starting requested retrainings on the cluster from a terminal, with the version that this checkout compiles to."""

from pathlib import Path

from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version
from components.core.ledger.attempts import Attempt
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings
from components.retrain.dispatcher import KfpDispatcher, start_open
from pipelines.catalog import read_case
from pipelines.cluster.upload import publish_version
from pipelines.compile import compile_for_cluster
from pipelines.definitions import applied_definitions
from pipelines.image_lock import read_image_lock


def dispatch_on_cluster(settings: Settings, *, use_case: str, images: Path) -> list[Attempt]:
    """Start every open request of one use case, or of all, and return the attempts that this call started.

    Raises ConfigError, NotOnCluster, ClusterUnreachable, ClusterError, LedgerError; repeating it is safe.
    """
    api = KfpApi(settings)
    lock = read_image_lock(images)
    versions: dict[str, Version] = {}

    def version(model: str) -> Version:
        if model not in versions:
            case = read_case(settings.feature_repo, model)
            ir = compile_for_cluster(case, "training", applied_definitions(settings, model), lock)
            versions[model] = publish_version(api, ir)
        return versions[model]

    ledger = open_ledger(settings.ledger_url)
    return start_open(ledger, KfpDispatcher(api, ledger, version=version), model=use_case)
