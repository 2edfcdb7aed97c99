"""What Kubeflow's local runner costs: the whole pipeline against the same logic called by one script.

    python benchmarks/local_overhead.py [--use-case wind] [--rounds 3]

Both sides do all the work, from raw files to a promoted, probed Bento, each in a fresh home. The script imports every
library once, in one process; the pipeline forks a process per heavy step from one that has imported its libraries, and
starts one per light step. Design bar: at most 1.3 times the CPU.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BAR = 1.3


def one_script(name: str) -> None:
    """Call the logic of every step in this process."""
    from components.claim.claim import claim
    from components.core.ledger.engine import migrate
    from components.core.settings import load_settings
    from components.core.tables import write_snapshot
    from components.evaluate.step import evaluate_model
    from components.features.apply import apply_definitions
    from components.features.build import build
    from components.ingest.snapshot import take_snapshot
    from components.package.packaging import package_model
    from components.promote.promote import promote
    from components.train.fit import fit
    from components.validate.judge import judge
    from pipelines.catalog import read_case

    settings = load_settings()
    case = read_case(settings.feature_repo, name)
    use_case, problem, out = case.use_case, case.use_case.problem, settings.home / "out"
    out.mkdir(parents=True)
    migrate(settings.ledger_url)
    digest = apply_definitions(settings, name)
    claim(settings, "training", name)
    taken = take_snapshot(
        settings, name, problem=problem, data=use_case.data, sql=case.sql, as_of=use_case.bootstrap_as_of
    )
    manifest = write_snapshot(settings.snapshots, taken)
    checked, judged = out / "validate.json", out / "evaluate.json"
    judge(
        name, manifest, case.suite, use_case.expectations, settings.snapshots, verdict=checked, page=out / "page.html"
    )
    rows, bundle, bento = out / "training_set", out / "model", out / "bento.tar"
    build(
        settings,
        name,
        as_of="",
        problem=problem,
        config=use_case.features,
        registry=digest,
        snapshot=manifest,
        verdict=checked,
        folder=rows,
    )
    fit(settings, use_case=name, problem=problem, config=use_case.train, training_set=rows, bundle=bundle)
    evaluate_model(
        settings,
        name,
        problem,
        use_case.evaluate,
        bundle=bundle,
        training_set=rows,
        verdict=judged,
        report=out / "report.html",
        card=out / "card.md",
    )
    package_model(
        settings,
        name,
        problem=problem,
        config=use_case.package,
        model=bundle,
        training_set=rows,
        verdict=judged,
        bento=bento,
        probe=out / "probe.md",
    )
    assert promote(settings, name, bento=bento, model=bundle, verdict=judged) == "promoted"


def measure(words: list[str]) -> tuple[float, float]:
    """Return CPU and wall seconds of a command and all its descendants, in a fresh home."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "DRIFTLINE_HOME": home, "DRIFTLINE_RUN_KEY": "benchmark"}
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(words, env=environment, cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--use-case", default="wind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-script", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_script:
        one_script(options.use_case)
        return
    pipeline = [sys.executable, "-c", "from pipelines.cli import main; main()", "run", "training", "--use-case"]
    ratios = []
    for number in range(1, options.rounds + 1):
        ours, wall = measure([*pipeline, options.use_case])
        peer, peer_wall = measure([sys.executable, __file__, "--one-script", "--use-case", options.use_case])
        ratios.append(ours / peer)
        print(
            f"round {number}: pipeline {ours:.1f} CPU-s ({wall:.1f} s wall), one script {peer:.1f} CPU-s"
            f" ({peer_wall:.1f} s wall): ratio {ours / peer:.2f}"
        )
    print(f"median ratio in CPU time {statistics.median(ratios):.2f} (bar {BAR})")


if __name__ == "__main__":
    main()
