"""What the KFP API's answers mean, in words that a person can act on."""

import json
from http import HTTPStatus
from typing import Any

from components.core.errors import ClusterError, ClusterUnreachable, NotOnCluster, TakenOnCluster
from components.core.settings import Settings

SHOWN_CHARACTERS = 400
# Whoever asks again later may be answered.
BUSY = (429, 502, 503, 504)
GRPC_NOT_FOUND = 5


def refused(settings: Settings, what: str, status: int, body: Any) -> ClusterError:
    """Return what to raise for an answer that is no success; `what` is what was attempted ("read run x")."""
    message = _sentence(body)
    namespace = settings.kfp_namespace or "(none)"
    if status in BUSY:
        return unreachable(settings, what, f"{status}, {message}")
    if status == HTTPStatus.NOT_FOUND:
        # A proxy that knows no way, or another program, must not pass for "there is no such run".
        if _parsed(body).get("code") != GRPC_NOT_FOUND:
            return no_api(settings, what, f"{status}, {message}")
        return NotOnCluster(f"cannot {what}: there is no such thing on {settings.kfp_host}", measured=message)
    # A run id that is taken is, to the API, an internal error (code 13) of its database.
    if status == HTTPStatus.CONFLICT or "Duplicate entry" in message or "already exist" in message:
        return TakenOnCluster(f"cannot {what}: it exists already", measured=message)
    reason, next_step = "the KFP API refuses it", "correct what was asked for, or read the log of service ml-pipeline"
    if status == HTTPStatus.UNAUTHORIZED:
        reason = "the KFP API accepts no call without a valid token"
        next_step = "let DRIFTLINE_KFP_TOKEN name a file with a token"
        if settings.kfp_token is not None:
            next_step = f"renew the token in {settings.kfp_token}, which DRIFTLINE_KFP_TOKEN names"
    elif status == HTTPStatus.FORBIDDEN:
        reason = f"the owner of the token may not do that in namespace {namespace}"
        next_step = "check DRIFTLINE_KFP_NAMESPACE, and the role of this account in that namespace"
    elif "namespace" in message.lower():
        reason = f"the KFP API does not accept the namespace {namespace}"
        next_step = "set DRIFTLINE_KFP_NAMESPACE where KFP serves several users; leave it empty where it does not"
    return ClusterError(f"cannot {what}: {reason}", measured=f"{status}, {message}", next_step=next_step)


def unreachable(settings: Settings, what: str, reason: str) -> ClusterUnreachable:
    """Return what to raise when no answer came: the thing may have been done or not."""
    return ClusterUnreachable(
        f"cannot {what}: {settings.kfp_host} does not answer",
        measured=reason,
        next_step="check DRIFTLINE_KFP_HOST and that the cluster is up, then run the command again",
    )


def no_api(settings: Settings, what: str, reason: str) -> ClusterError:
    """Return what to raise when something else than the KFP API answered, such as a login page."""
    return ClusterError(
        f"cannot {what}: {settings.kfp_host} does not answer like the KFP API",
        measured=reason,
        allowed="JSON",
        next_step="let DRIFTLINE_KFP_HOST name the service ml-pipeline, and DRIFTLINE_KFP_TOKEN a file with a token "
        "where a login page stands before it",
    )


def innermost(error: BaseException) -> str:
    """Return the reason of a transport error, without the address of an object in memory."""
    reason: BaseException = error
    while isinstance(inner := getattr(reason, "reason", None), BaseException):
        reason = inner
    return str(reason).rpartition(">: ")[2] or type(reason).__name__


def _sentence(body: Any) -> str:
    parsed = _parsed(body)
    text = parsed.get("message") or parsed.get("error_message") or parsed.get("error") or _text(body)
    return str(text).strip()[:SHOWN_CHARACTERS]


def _parsed(body: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(_text(body))
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _text(body: Any) -> str:
    return body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
