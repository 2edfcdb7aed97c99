"""The online store's address: one URL for whoever writes features and whoever reads them."""

import json
from typing import Any
from urllib.parse import unquote, urlsplit

from components.core.errors import ConfigError

ENTITY_KEY_VERSION = 3
"""Serialization of entity keys; reader and writer must agree."""

_EXAMPLES = "sqlite:////path/online.db, redis://host:6379/0, rediss://:password@host:6379, postgresql://user:pw@host/db"


def online_store_config(url: str) -> dict[str, Any]:
    """Turn an address into the `online_store` section of a Feast configuration.

    Timeouts keep a dead store from holding requests. Raises ConfigError for an unknown scheme, a missing
    part or a password that Feast's comma-separated Redis notation cannot carry.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite" and len(parts.path) > 1:
        return {"type": "sqlite", "path": unquote(parts.path.removeprefix("/"))}
    if scheme in ("redis", "rediss") and parts.hostname:
        return {"type": "redis", "connection_string": _redis(url)}
    if scheme in ("postgresql", "postgres") and parts.hostname and parts.username and len(parts.path) > 1:
        query = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
        return {
            "type": "postgres",
            "host": parts.hostname,
            "port": parts.port or 5432,
            "database": parts.path.removeprefix("/"),
            "user": unquote(parts.username),
            "password": unquote(parts.password or ""),
            "sslmode": query.get("sslmode", "prefer"),
        }
    raise ConfigError(
        "DRIFTLINE_ONLINE_STORE_URL is not the address of an online store",
        measured=f"{scheme or 'no scheme'}://{parts.hostname or ''}{parts.path}",
        allowed=_EXAMPLES,
    )


def _redis(url: str) -> str:
    parts = urlsplit(url)
    options = ["socket_timeout=2", "socket_connect_timeout=2", f"db={parts.path.removeprefix('/') or 0}"]
    if parts.scheme == "rediss":
        options.append("ssl=true")
    for name, value in (("username", parts.username), ("password", parts.password)):
        text = unquote(value or "")
        if "," in text:
            raise ConfigError(f"the Redis {name} must not contain a comma", next_step="choose another one")
        if text:
            # Feast decodes values as JSON: without quotes a password of digits would become a number.
            options.append(f"{name}={json.dumps(text)}")
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *options])
