"""What the serving image runs: the Bento that `DRIFTLINE_BENTO` names, once it is verified, on port 3000 of every
address."""

import logging
import sys
from typing import NoReturn

from components.core.errors import ConfigError, DriftlineError
from components.core.settings import load_settings
from components.serve.run import serve_bento
from components.serve.verify import verified_bento

log = logging.getLogger(__name__)

PORT = 3000


def serve() -> NoReturn:
    """Replace this process by a server of `settings.bento`. Raises what `verified_bento` and `serve_bento` raise."""
    settings = load_settings()
    if not settings.bento:
        raise ConfigError(
            "no Bento is named",
            allowed="a tar, its address in the object store, or an unpacked Bento",
            next_step="set DRIFTLINE_BENTO to its path or address",
        )
    # A probe and a service come from outside the pod.
    serve_bento(settings, verified_bento(settings), host="0.0.0.0", port=PORT)  # noqa: S104


def main() -> None:
    """Serve; an error that we raise on purpose becomes one line and its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        serve()
    except DriftlineError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
