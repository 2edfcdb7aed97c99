"""Ask the feature server whether it is well, and whether it has no way to write."""

import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus


def status(path: str, body: bytes | None = None) -> int | str:
    request = urllib.request.Request(f"{sys.argv[1]}{path}", body, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  the chart gives the address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return f"{error}"


ends = time.monotonic() + 90
while (well := status("/health")) != HTTPStatus.OK and time.monotonic() < ends:
    time.sleep(1)
writing = {path: status(path, b"{}") for path in ("/push", "/write-to-online-store", "/materialize")}
sys.stdout.write(f"/health: {well}, ways to write: {writing}\n")
sys.exit(0 if well == HTTPStatus.OK and set(writing.values()) == {HTTPStatus.NOT_FOUND} else 1)
