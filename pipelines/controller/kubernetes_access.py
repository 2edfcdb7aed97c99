"""The way to the Kubernetes API: the pod's own service account, or the file that KUBECONFIG names; otherwise none."""

from pathlib import Path
from typing import Any, NamedTuple

from components.core.errors import ConfigError
from components.core.settings import Settings

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Kubernetes(NamedTuple):
    client: Any
    """An `ApiClient` of the package kubernetes."""
    namespace: str
    """Where this process is at home."""


def find_kubernetes(settings: Settings) -> Kubernetes | None:
    """Return the way to the cluster, None where there is none. Raises ConfigError for a file that cannot be used."""
    from kubernetes import client, config

    own = client.Configuration()
    try:
        config.load_incluster_config(own)
    except config.ConfigException:
        if settings.kubeconfig is None:
            return None
        try:
            config.load_kube_config(str(settings.kubeconfig), client_configuration=own)
            _, context = config.list_kube_config_contexts(str(settings.kubeconfig))
        except (config.ConfigException, OSError) as error:
            raise ConfigError(
                "the file that KUBECONFIG names cannot be used", measured=str(error), next_step="correct KUBECONFIG"
            ) from error
        return Kubernetes(client.ApiClient(own), context["context"].get("namespace", "default"))
    own.retries = 0  # each part comes again by itself
    namespace = NAMESPACE.read_text(encoding="utf-8").strip() if NAMESPACE.is_file() else "default"
    return Kubernetes(client.ApiClient(own), namespace)
