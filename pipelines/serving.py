"""Serving the champion in the foreground, from a Bento store of our own."""

import os
import subprocess
import sys
from pathlib import Path

from components.core.errors import PackagingFailed
from components.core.ledger.champions import Champion
from components.core.settings import Settings
from pipelines.champion import bento_tag


def serve(settings: Settings, champion: Champion, *, host: str, port: int) -> int:
    """Import the champion's Bento once and run its server until it ends; return its exit code."""
    archive = Path(champion.bento_uri)
    tag = bento_tag(archive)
    bentoml = [sys.executable, "-m", "bentoml"]
    environment = {
        **os.environ,
        "BENTOML_HOME": str(settings.home / "bentoml" / champion.bento_digest[:12]),
        "DRIFTLINE_HOME": str(settings.home),
        "DRIFTLINE_ONLINE_STORE_URL": settings.online_store_url,
    }
    # A store per archive: the same tag may name another build.
    if subprocess.run([*bentoml, "get", tag], env=environment, capture_output=True, check=False).returncode:  # noqa: S603
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [*bentoml, "import", str(archive)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PackagingFailed("BentoML cannot import the champion", measured=done.stderr[-500:].strip())
    command = [*bentoml, "serve", tag, "--host", host, "--port", str(port)]
    try:
        return subprocess.call(command, env=environment)  # noqa: S603
    except KeyboardInterrupt:
        return 0
