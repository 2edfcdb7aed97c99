"""One policy, tick by tick: score, watch, decide, retrain, gate, promote, by the runs that a person would start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.errors import DriftlineError
from components.core.ledger.champions import read_champion
from components.core.ledger.decisions import Decision, list_decisions
from components.core.ledger.engine import migrate, open_ledger
from components.core.settings import Settings
from components.core.storage import write_text
from pipelines.catalog import read_case
from pipelines.dispatch import dispatch_open
from pipelines.events import Step
from pipelines.execute import run_pipeline
from pipelines.local import RunRecord
from pipelines.replay.clock import Tick

Tell = Callable[[str], None]


class Played(BaseModel):
    """One tick as it was played."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    """Champion that was watched."""
    decision: Decision
    promoted: int | None
    """Version that a retraining of this tick brought; None: none."""
    seconds: dict[str, float]
    """Pipeline to wall-clock seconds."""


class Play(BaseModel):
    """One policy over all ticks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    policy: str
    bootstrap_seconds: float
    ticks: list[Played]


def play(settings: Settings, use_case: str, policy: str, ticks: list[Tick], tell: Tell) -> Play:
    """Play a policy in a home of its own; a replay that was interrupted goes on after its last finished tick.

    Raises DriftlineError when a pipeline fails.
    """
    path = settings.home / "play.json"
    if path.is_file():
        played = Play.model_validate_json(path.read_text(encoding="utf-8"))
    else:
        first = _run(settings, use_case, "training", {"as_of": ticks[0].scored_from.isoformat()})
        played = Play(use_case=use_case, policy=policy, bootstrap_seconds=seconds(first), ticks=[])
        write_text(path, played.model_dump_json(indent=2))
    for tick in ticks[len(played.ticks) :]:
        done = play_tick(settings, use_case, policy, tick)
        played = played.model_copy(update={"ticks": [*played.ticks, done]})
        write_text(path, played.model_dump_json(indent=2))
        tell(describe(done))
    return played


def play_tick(settings: Settings, use_case: str, policy: str, tick: Tick) -> Played:
    """Score the days up to a tick, judge its window and carry out the decision."""
    case = read_case(settings.feature_repo, use_case).use_case
    migrate(settings.ledger_url)
    ledger = open_ledger(settings.ledger_url)
    as_of = tick.as_of.isoformat()
    period = {"first": f"{tick.scored_from:%Y-%m-%d}", "last": f"{tick.as_of:%Y-%m-%d}"}
    scored = _run(settings, use_case, "scoring", {"as_of": as_of, **period})
    config = case.monitor.model_copy(update={"policy": policy, "report_rows": 0})
    monitor = config.model_dump(mode="json", exclude_none=True)
    watched = _run(settings, use_case, "monitoring", {"as_of": as_of, "monitor": monitor})
    before = read_champion(ledger, use_case)
    retrained = dispatch_open(settings, model=use_case, notify=_silent, announce=_silent)
    after = read_champion(ledger, use_case)
    decision = next(d for d in list_decisions(ledger, use_case) if d.window == tick.window)
    return Played(
        version=decision.version,
        decision=decision,
        promoted=after.version if after and after != before else None,
        seconds={
            "scoring": seconds(scored),
            "monitoring": seconds(watched),
            "training": sum(seconds(record) for record in retrained),
        },
    )


def describe(played: Played) -> str:
    """Tell one tick in a line."""
    outcome = f", version {played.promoted} promoted" if played.promoted else ""
    return f"{played.decision.window.first:%Y-%m-%d}: {played.decision.decision} ({played.decision.rung}){outcome}"


def seconds(record: RunRecord) -> float:
    return round(((record.finished_at or record.started_at) - record.started_at).total_seconds(), 1)


def _run(settings: Settings, use_case: str, pipeline: str, arguments: dict[str, Any]) -> RunRecord:
    record = run_pipeline(settings, use_case, pipeline, overrides=arguments, notify=_silent, announce=_silent)
    if record.state != "succeeded":
        failed = record.failed_step
        raise DriftlineError(
            f"the {pipeline} run {record.id} of the replay {record.state}",
            measured=failed.failure.message if failed and failed.failure else None,
            next_step=f"DRIFTLINE_HOME={settings.home} driftline why {record.id}",
        )
    return record


def _silent(_: Step | str) -> None:
    pass


def home_of(settings: Settings, use_case: str, policy: str, ticks: list[Tick]) -> Path:
    """Return the home in which a policy is played over these ticks."""
    span = f"{ticks[0].window.first:%Y%m%d}-{ticks[-1].window.last:%Y%m%d}"
    return settings.home / "replay" / f"{use_case}-{span}" / policy
