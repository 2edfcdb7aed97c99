"""Serving a packaged Bento in the foreground: `driftline serve`."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from components.core.digests import file_digest
from components.core.errors import ConfigError, PackagingFailed
from components.core.serving import read_archived_spec, read_unpacked_spec
from components.core.settings import QUIET, Settings

log = logging.getLogger(__name__)


def serve_bento(settings: Settings, archive: Path, *, host: str = "127.0.0.1", port: int = 3000) -> NoReturn:
    """Replace this process by a server of the archive; features come from `settings.online_store_url`.

    Predictions go to `settings.predictions`.
    The archive is unpacked once, into a BentoML home below `settings.home`; a folder is one unpacked already, such as
    a mounted volume, and only read. Raises ConfigError when there is no such Bento, DataError when it is no Bento of
    ours, PackagingFailed when BentoML cannot import it.
    """
    if archive.is_dir():
        tag, bento, home = read_unpacked_spec(archive).tag, str(archive.absolute()), settings.home / "serving"
        # The server would write bytecode beside the sources in the folder.
        os.environ.update(PYTHONDONTWRITEBYTECODE="1")
    elif archive.is_file():
        tag = bento = read_archived_spec(archive).tag
        home = unpack(settings, archive)
    else:
        raise ConfigError("there is no such Bento", measured=str(archive), next_step="run `driftline run training`")
    # Written, not read: the server inherits the rest of this process's environment.
    os.environ.update(
        QUIET
        | {
            "BENTOML_HOME": str(home),
            "DRIFTLINE_HOME": str(settings.home),
            "DRIFTLINE_ONLINE_STORE_URL": settings.online_store_url,
            "DRIFTLINE_INFERENCE_LOG": str(settings.predictions),
        }
    )
    log.info("serving %s on http://%s:%d", tag, host, port)
    command = [sys.executable, "-m", "bentoml", "serve", bento, "--host", host, "--port", str(port)]
    os.execv(command[0], command)  # noqa: S606 - our own interpreter


def unpack(settings: Settings, archive: Path) -> Path:
    """Return the BentoML home of an archive, named by its content; import it if that was not done yet."""
    home = settings.home / "serving" / file_digest(archive)
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{home.name[:12]}.", dir=home.parent))
    try:
        # BentoML goes by the suffix, which an artifact may lack.
        link = partial / "bento.tar"
        link.symlink_to(archive.absolute())
        command = ["env", f"BENTOML_HOME={partial}", sys.executable, "-m", "bentoml", "import", str(link)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
        if done.returncode:
            raise PackagingFailed(f"BentoML cannot import {archive}", measured=done.stderr[-2000:].strip())
        link.unlink()
        try:
            partial.rename(home)
        except OSError:
            # Another process was first.
            if not home.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return home
