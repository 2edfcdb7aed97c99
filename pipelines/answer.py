"""Booting the champion's Bento for one question."""

from typing import Any

from components.core.champion import require_champion
from components.core.errors import PackagingFailed
from components.core.object_store import local_path
from components.core.serving import read_archived_spec
from components.core.settings import Settings
from components.core.usecase import UseCase
from pipelines.example import example_request


def answer_once(settings: Settings, use_case: UseCase) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Ask the champion about one open row; return the row's id, the request and the answer."""
    from components.package.server import booted

    champion = require_champion(settings, use_case.name)
    row, request = example_request(settings, use_case.name, use_case.problem)
    archive = local_path(settings, champion.bento_uri)
    with booted(archive, read_archived_spec(archive).tag, online_store_url=settings.online_store_url) as server:
        status, answer = server.post("/predict", request)
    if status != 200:  # noqa: PLR2004 - HTTP OK
        raise PackagingFailed("the champion did not answer", measured=f"HTTP {status}: {answer}")
    return row, request, answer
