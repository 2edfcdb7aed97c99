"""What a plan says, for people and for programs."""

import json
from datetime import datetime
from itertools import islice
from typing import Any

from components.core.errors import ConfigError
from pipelines.schedules.cron import fire_times, parse_cron
from pipelines.schedules.plan import DIFFERS, Change

MARKS = {
    "create": "+",
    "replace": "±",
    "enable": "▶",
    "disable": "■",
    "delete": "-",
    "clean up": "~",
    "unchanged": " ",
    "undeclared": "?",
}
COLOURS = {"create": "green", "replace": "yellow", "enable": "green", "disable": "yellow", "delete": "red"}
NOTES = {
    "undeclared": "no file declares it; --prune deletes it",
    "clean up": "an interrupted apply left recurring runs behind",
    "enable": "made anew, so that ticks missed meanwhile do not start",
}
SHOWN_TICKS = 3


def differs(changes: list[Change]) -> bool:
    """Return whether there is anything to do."""
    return any(change.action in DIFFERS for change in changes)


def next_ticks(change: Change, now: datetime) -> list[datetime]:
    """Return the next three instants at which a schedule fires once the change is made; none where it is off."""
    wanted, current = change.wanted, change.current
    if wanted is not None:
        enabled, spec = wanted.enabled, wanted.spec.document()
    elif change.action == "undeclared" and current is not None:
        enabled, spec = current.enabled, current.has
    else:
        return []
    if not enabled:
        return []
    starts, ends = spec.get("starts"), spec.get("ends")
    after = max(now, datetime.fromisoformat(starts)) if starts else now
    try:
        ticks = islice(fire_times(parse_cron(spec["cron"]), after), SHOWN_TICKS)
    except ConfigError:
        return []
    return [tick for tick in ticks if not ends or tick <= datetime.fromisoformat(ends)]


def summarize(changes: list[Change], now: datetime) -> list[tuple[str, str | None]]:
    """Return the lines of a plan, each with its colour."""
    lines: list[tuple[str, str | None]] = []
    for change in changes:
        note = f"  ({NOTES[change.action]})" if change.action in NOTES else ""
        lines.append((f"{MARKS[change.action]} {change.name:<32} {change.action}{note}", COLOURS.get(change.action)))
        for field, old, new in change.differences:
            lines.append((f"      {field}: {_short(old)} → {_short(new)}", None))
        if change.action == "create" and change.wanted is not None:
            spec = change.wanted.spec
            lines.append((f"      {spec.version}, {spec.cron!r} UTC{'' if change.wanted.enabled else ', off'}", None))
        if ticks := next_ticks(change, now):
            lines.append((f"      next: {', '.join(f'{tick:%a %Y-%m-%d %H:%M:%S}' for tick in ticks)}", None))
    counts = [f"{n} to {action}" for action in DIFFERS if (n := sum(c.action == action for c in changes))]
    same = sum(change.action == "unchanged" for change in changes)
    lines.append((", ".join([*counts, f"{same} unchanged"]), None))
    return lines


def as_json_document(changes: list[Change], now: datetime) -> dict[str, Any]:
    """Describe a plan for programs."""
    return {
        "differs": differs(changes),
        "schedules": [
            {
                "name": change.name,
                "action": change.action,
                "differences": [difference._asdict() for difference in change.differences],
                "wanted": (change.wanted.spec.model_dump(mode="json") | {"enabled": change.wanted.enabled})
                if change.wanted
                else None,
                "recurring_run": change.current.id if change.current else None,
                "next": [tick.isoformat() for tick in next_ticks(change, now)],
            }
            for change in changes
        ],
    }


def _short(value: Any) -> str:
    if value in (None, ""):
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value)
