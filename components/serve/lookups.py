"""Lookups in Feast's online stores, one key per view: a call per view, or one round trip where the store can."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from components.serve.views import View

Row = tuple[datetime | None, dict[str, Any] | None]
"""Event timestamp and Feast values by feature, as `OnlineStore.online_read` returns them."""


class Lookup(Protocol):
    """Read the row of each key; keys and views correspond."""

    def __call__(self, views: Sequence[View], keys: Sequence[Any]) -> list[Row]: ...


class ViewByView:
    """Any Feast store, by its public `online_read`."""

    def __init__(self, store: Any, config: Any) -> None:
        self._store, self._config = store, config

    def __call__(self, views: Sequence[View], keys: Sequence[Any]) -> list[Row]:
        rows: list[Row] = []
        for view, key in zip(views, keys, strict=True):
            # A fresh list: a store may append to the one it is given.
            rows += self._store.online_read(self._config, view.table, [key], list(view.features))
        return rows


class RedisPipeline:
    """Feast's Redis store, all views in one round trip.

    The store has such a read, but only behind its response building, so this uses the methods that it is made of
    (feast 0.67, `RedisOnlineStore._read_features_per_fv`); tests compare with the SDK.
    """

    def __init__(self, store: Any, config: Any, views: Sequence[View]) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._store, self._config = store, config
        # The default waits up to seven seconds between its retries: longer than anybody waits for a prediction.
        store._get_client(config.online_store).set_retry(Retry(NoBackoff(), 1))
        self._fields: dict[str, tuple[list[str], list[bytes]]] = {
            view.name: store._generate_hset_keys_for_features(view.table, list(view.features)) for view in views
        }

    def __call__(self, views: Sequence[View], keys: Sequence[Any]) -> list[Row]:
        if not views:
            return []
        redis_keys = self._store._generate_redis_keys_for_entities(self._config, keys)
        commands = [(key, self._fields[view.name][1]) for view, key in zip(views, redis_keys, strict=True)]
        replies = self._store._read_hash_fields(self._config, commands)
        return [
            self._store._get_features_for_entity(reply, view.name, self._fields[view.name][0])
            for view, reply in zip(views, replies, strict=True)
        ]
