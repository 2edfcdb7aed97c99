"""Playing several policies side by side, each in a process and a home of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.core.errors import DriftlineError
from components.core.settings import Settings, embedded_settings
from pipelines.local import end_group
from pipelines.replay.clock import Tick
from pipelines.replay.play import Play, Tell, home_of


def play_policies(
    settings: Settings, use_case: str, policies: Sequence[str], ticks: list[Tick], *, jobs: int, tell: Tell
) -> dict[str, tuple[Settings, Play]]:
    """Play policies, at most `jobs` at a time; return the settings of each one's home and its play.

    What was played before is kept. Raises DriftlineError when a policy cannot be played to its end.
    """
    homes = {policy: home_of(settings, use_case, policy, ticks) for policy in policies}
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(_play, embedded_settings(home, settings.feature_repo), use_case, policy, ticks, tell)
            for policy, home in homes.items()
        ]
        plays = [future.result() for future in waiting]
    own = [embedded_settings(home, settings.feature_repo) for home in homes.values()]
    return dict(zip(policies, zip(own, plays, strict=True), strict=True))


def _play(settings: Settings, use_case: str, policy: str, ticks: list[Tick], tell: Tell) -> Play:
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / "play.json"
    errors = settings.home / "errors.txt"
    command = [sys.executable, "-m", "pipelines.replay.worker", use_case, policy]
    command += [ticks[0].window.first.isoformat(), ticks[-1].window.last.isoformat()]
    with errors.open("w") as log:
        worker = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | settings.environment(),
            start_new_session=True,
        )
        try:
            for line in worker.stdout or ():
                tell(line.rstrip())
        finally:
            code = end_group(worker)
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    pipe.close()
    if code:
        raise DriftlineError(
            f"policy {policy} was not played to its end",
            measured=_last_line(errors),
            next_step=f"see {errors}; the replay goes on where it stopped when it is started again",
        )
    return Play.model_validate_json(path.read_text(encoding="utf-8"))


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
