"""Ask the controllers behind a Service until one that leads answers: each request may meet another one."""

import sys
import time
import urllib.request

seen, ends = "", time.monotonic() + 90
while time.monotonic() < ends:
    try:
        with urllib.request.urlopen(f"{sys.argv[1]}/readyz", timeout=5):  # noqa: S310  the chart gives the address
            pass
        with urllib.request.urlopen(f"{sys.argv[1]}/metrics", timeout=5) as answer:  # noqa: S310
            seen = answer.read().decode()
    except OSError as error:
        seen = f"{error}"
    if "driftline_controller_leader 1.0" in seen.splitlines():
        sys.exit(0)
    time.sleep(1)
sys.exit(f"no controller that leads answered within 90 s; the last answer: {seen[:500]}")
