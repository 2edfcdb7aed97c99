"""Child process of a replay: plays one policy. Prints one line per tick.

    python -m pipelines.replay.worker USE_CASE POLICY FIRST LAST

Its home and all stores come from the environment; it ends with whoever holds its standard input.
"""

import sys
import threading
from datetime import datetime

from components.core.settings import load_settings
from pipelines.catalog import read_case
from pipelines.local_worker import die_with_parent
from pipelines.replay.clock import plan_ticks
from pipelines.replay.play import play


def main() -> None:
    """Play the policy that the arguments name."""
    use_case, policy, first, last = sys.argv[1:5]
    threading.Thread(target=die_with_parent, daemon=True).start()
    settings = load_settings()
    config = read_case(settings.feature_repo, use_case).use_case.monitor
    ticks = plan_ticks(config, datetime.fromisoformat(first), datetime.fromisoformat(last))
    play(settings, use_case, policy, ticks, lambda line: print(f"{policy:<12} {line}", flush=True))  # noqa: T201


if __name__ == "__main__":
    main()
