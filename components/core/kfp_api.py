"""Speaking to the API of Kubeflow Pipelines: one connection, and errors that say what to do.

`kfp.Client` cannot be imported inside a KFP task, `kfp_server_api` can; so everybody uses this module.
"""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.errors import ConfigError
from components.core.kfp_errors import innermost, no_api, refused, unreachable
from components.core.settings import Settings

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
PAGE_SIZE = 100


class KfpApi:
    """A connection; its services are those of `kfp_server_api`, to be called through `call` only."""

    def __init__(self, settings: Settings) -> None:
        """Prepare a connection without using it. Raises ConfigError when no address is set."""
        if not settings.kfp_host.startswith(("http://", "https://")):
            raise ConfigError(
                "no address of the KFP API is set",
                measured=settings.kfp_host or "DRIFTLINE_KFP_HOST is empty",
                allowed="http://HOST:PORT or https://HOST/pipeline",
                next_step="set DRIFTLINE_KFP_HOST, for instance to the end of a `kubectl port-forward`",
            )
        import kfp_server_api

        self.settings = settings
        configuration = kfp_server_api.Configuration(host=settings.kfp_host)
        configuration.retries = 0  # a repeated POST would start a second Workflow; who waits repeats by himself
        if (token := settings.kfp_token) is not None:

            def refresh(configuration: Any) -> None:
                configuration.api_key["authorization"] = read_token(token)

            # A projected token is replaced every hour, so its file is read for every call.
            configuration.api_key["authorization"] = ""
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = refresh
        self.client = kfp_server_api.ApiClient(configuration)

    @cached_property
    def runs(self) -> Any:
        """Return the run service."""
        import kfp_server_api

        return kfp_server_api.RunServiceApi(self.client)

    @cached_property
    def recurring_runs(self) -> Any:
        """Return the recurring run service."""
        import kfp_server_api

        return kfp_server_api.RecurringRunServiceApi(self.client)

    @cached_property
    def pipelines(self) -> Any:
        """Return the pipeline service."""
        import kfp_server_api

        return kfp_server_api.PipelineServiceApi(self.client)

    @cached_property
    def uploads(self) -> Any:
        """Return the service that takes compiled pipelines."""
        import kfp_server_api

        return kfp_server_api.PipelineUploadServiceApi(self.client)

    @cached_property
    def experiments(self) -> Any:
        """Return the experiment service."""
        import kfp_server_api

        return kfp_server_api.ExperimentServiceApi(self.client)

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of a service and return its answer; `what` names the attempt in errors ("read run x").

        Raises NotOnCluster (404), TakenOnCluster (the name or id exists), ClusterUnreachable (no answer in time: it may
        have been done or not), ClusterError (anything else that the API refused), ConfigError (unusable token).
        """
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = function(*args, _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS), **kwargs)
        except HTTPError as error:
            raise unreachable(self.settings, what, innermost(error)) from error
        except ApiException as error:
            if not error.status:  # TLS
                raise unreachable(self.settings, what, str(error.reason)) from error
            raise refused(self.settings, what, error.status, error.body or error.reason) from error
        except (AttributeError, TypeError, ValueError) as error:
            # What the generated client makes of TLS errors and of pages that are no JSON.
            raise no_api(self.settings, what, f"{type(error).__name__}: {error}") from error
        content = self.client.last_response.getheader("content-type") or ""
        if "html" in content:
            raise no_api(self.settings, what, f"a page of type {content}")
        return answer

    def pages(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the pages of a listing, one call each and only when asked for. Raises like `call`."""
        token = ""
        while True:
            page = self.call(what, function, *args, page_token=token, page_size=PAGE_SIZE, **kwargs)
            yield page
            token = page.next_page_token or ""
            if not token:
                return

    def get_text(self, what: str, path: str) -> str:
        """Return what a path of the API answers, as text. Raises like `call`."""

        def get(**timeout: Any) -> Any:
            return self.client.call_api(
                path, "GET", auth_settings=["Bearer"], response_type="str", _return_http_data_only=True, **timeout
            )

        answer = self.call(what, get)
        return answer if isinstance(answer, str) else json.dumps(answer)


def read_token(path: Path) -> str:
    """Return the token in a file. Raises ConfigError when it cannot be read or is none."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the token for the KFP API in {path}",
            measured=getattr(error, "strerror", None) or type(error).__name__,
            next_step="let DRIFTLINE_KFP_TOKEN name a readable file with a token in it",
        ) from error
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise ConfigError(
            f"{path} holds no token",
            measured=f"{len(token)} characters",
            allowed="one token without spaces",
            next_step="write the token into the file that DRIFTLINE_KFP_TOKEN names",
        )
    return token
