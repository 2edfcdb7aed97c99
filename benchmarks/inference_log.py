"""What the inference log costs: CPU per request of one Bento with and without it, on real flights.

    python benchmarks/inference_log.py [--pairs 12] [--connections 16]

Both servers are the Bento of `benchmarks/serving.py`, one worker each, one of them with an inference log. Pairs of
rounds alternate, also in who is first; CPU is what the server's processes used (/proc), from the first request until
the files that the round filled are written. Each round fills a file; every row is read back and compared.
Bar: at most 5 % CPU per request, on ready features and with a lookup by key; p99 of both is printed.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from serving import ROUTES, Load, cpu_seconds, load, prepare, requests

from components.core.inference_log import read_predictions
from components.core.inference_losses import read_losses
from components.package.server import Server, booted
from components.serve.inference_writer import FLUSH_ROWS

BAR = 0.05
REQUESTS = FLUSH_ROWS
SETTLE_SECONDS = 1.0
NAMES = ("without", "with")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as scratch:
        case = prepare(Path(scratch), "")
        root = Path(scratch) / "predictions"
        bodies = requests(case)["ours"]
        with contextlib.ExitStack() as stack:
            servers = {
                name: stack.enter_context(
                    booted(case.ours, case.spec.tag, online_store_url=case.online_url, inference_log=log)
                )
                for name, log in zip(NAMES, (None, root), strict=True)
            }
            for kind in ROUTES:
                loads = {name: Load() for name in NAMES}
                for pair in range(options.pairs + 1):
                    for name in NAMES[:: 1 if pair % 2 else -1]:
                        cpu, latencies = measure(servers[name], kind, bodies[kind], options.connections)
                        # The first pair warms up.
                        if pair:
                            loads[name].cpu_us.append(cpu)
                            loads[name].latencies_ms += latencies
                report(kind, loads)
        check_complete(root, case.spec.use_case, (options.pairs + 1) * len(ROUTES) * REQUESTS)


def measure(server: Server, kind: str, bodies: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Return CPU microseconds per request of the server's processes, and all latencies in milliseconds."""
    before = cpu_seconds(server)
    latencies = asyncio.run(load(server.port, ROUTES[kind], bodies, REQUESTS, connections))
    # The last file of the round is written after its last request.
    time.sleep(SETTLE_SECONDS)
    return (cpu_seconds(server) - before) * 1e6 / REQUESTS, latencies


def report(kind: str, loads: dict[str, Load]) -> None:
    costs = [with_log / without - 1 for without, with_log in zip(*(loads[n].cpu_us for n in NAMES), strict=True)]
    cost = statistics.median(costs)
    p99 = {name: np.quantile(loads[name].latencies_ms, 0.99) for name in NAMES}
    verdict = "met" if cost <= BAR else "MISSED"
    pairs = ", ".join(f"{value:+.1%}" for value in sorted(costs))
    print(f"{kind}: {cost:+.1%} CPU per request with the log (bar {BAR:.0%}): {verdict}; pairs {pairs}")
    print(f"  p99 {p99['without']:.1f} ms without, {p99['with']:.1f} ms with")
    for name in NAMES:
        print(loads[name].line(name), flush=True)


def check_complete(root: Path, use_case: str, expected: int) -> None:
    """Every answered request must be in the log once."""
    found = read_predictions(root, use_case, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    assert found.num_rows == expected, (found.num_rows, expected)
    assert len(found.column("request_id").unique()) == expected
    assert read_losses(root, use_case) == []
    size = sum(path.stat().st_size for path in root.rglob("*.parquet"))
    print(f"log: {found.num_rows} rows, one per request, {size / found.num_rows:.0f} bytes each")


if __name__ == "__main__":
    main()
