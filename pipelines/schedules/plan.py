"""What to do so that the server has what is declared: a pure function of both.

The API cannot change a recurring run, only make, enable, disable and delete one. So a running schedule is replaced by

    create the new one, disabled     the server checks it; a refusal changes nothing
    disable the old one
    enable the new one
    delete the old one

Never are two enabled, wherever it stops. Stopped between the second and the third call none is enabled: the next
`apply` sees that the new one `replaces` the disabled one, enables it, and KFP's controller starts the newest tick that
was missed since its creation. Everything else that a stop leaves behind is a disabled recurring run that is deleted.
"""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pipelines.schedules.model import Existing, Wanted

Action = Literal["create", "replace", "enable", "disable", "delete", "clean up", "unchanged", "undeclared"]
DIFFERS: tuple[Action, ...] = ("create", "replace", "enable", "disable", "delete", "clean up")
NEW = "new"
"""Target of a step: the recurring run that a step before it created."""


class Step(NamedTuple):
    """One call of the API."""

    call: Literal["create", "enable", "disable", "delete"]
    target: str
    """Id of a recurring run, or NEW; of `create`: the id that the new one replaces, or ''."""


class Difference(NamedTuple):
    field: str
    old: Any
    new: Any


class Change(BaseModel):
    """What happens to one schedule."""

    model_config = ConfigDict(frozen=True)

    name: str
    action: Action
    differences: list[Difference] = []
    wanted: Wanted | None = None
    current: Existing | None = None
    """The one that runs, or else the newest."""


def plan(wanted: list[Wanted], existing: list[Existing], *, prune: bool) -> list[Change]:
    """Return one change for each schedule that is declared or on the server, by name.

    Without `prune`, what is on the server and not declared stays, as `undeclared`.
    """
    by_name = {schedule.name: schedule for schedule in wanted}
    names = sorted({*by_name, *(found.name for found in existing)})
    return [
        change_of(name, by_name.get(name), [found for found in existing if found.name == name], prune=prune)
        for name in names
    ]


def change_of(name: str, wanted: Wanted | None, existing: list[Existing], *, prune: bool) -> Change:
    """Return what happens to one schedule."""
    order = _newest_first(existing)
    current = next((found for found in order if found.enabled), order[0] if order else None)
    if wanted is None:
        return Change(name=name, action="delete" if prune else "undeclared", current=current)
    if current is None:
        return Change(name=name, action="create", wanted=wanted)
    action: Action
    if current.digest != wanted.spec.digest:
        action = "replace"
    elif current.enabled != wanted.enabled:
        action = "enable" if wanted.enabled else "disable"
    else:
        action = "clean up" if steps(wanted, existing) else "unchanged"
    found = _differences(wanted, current) if action == "replace" else []
    return Change(name=name, action=action, differences=found, wanted=wanted, current=current)


def steps(wanted: Wanted | None, existing: list[Existing]) -> list[Step]:
    """Return the calls that lead from what exists of one schedule to what is wanted.

    After each of them at most one recurring run is enabled if at most one was, and from there this function leads on.
    """
    order = _newest_first(existing)
    if wanted is None:
        return _deletions(order)
    equal = [found for found in order if found.digest == wanted.spec.digest]
    if wanted.enabled:
        return _steps_to_enabled(order, equal)
    if not equal:
        return [Step("create", ""), *_deletions(order)]
    kept = equal[0]
    return _deletions(order, keep=kept) + ([Step("disable", kept.id)] if kept.enabled else [])


def _steps_to_enabled(order: list[Existing], equal: list[Existing]) -> list[Step]:
    """`order` is what exists, the newest first; `equal` are those of them that have the wanted spec."""
    running = [found for found in order if found.enabled]
    if running:
        right = next((found for found in running if found in equal), None)
        if right is not None:
            return _deletions(order, keep=right)
        old = running[0]
        swap = [Step("create", old.id), Step("disable", old.id), Step("enable", NEW), Step("delete", old.id)]
        return _deletions(order, keep=old) + swap
    known = {found.id for found in order}
    unfinished = next((found for found in equal if found.replaces in known), None)
    if unfinished is not None:
        return [Step("enable", unfinished.id), *_deletions(order, keep=unfinished)]
    # Made anew even where an equal one is switched off: enabled again, that would at once start its newest missed tick.
    return [Step("create", ""), Step("enable", NEW), *_deletions(order)]


def _deletions(order: list[Existing], *, keep: Existing | None = None) -> list[Step]:
    """Delete all but one, those that run first."""
    return [Step("delete", found.id) for found in sorted(order, key=lambda f: not f.enabled) if found != keep]


def _newest_first(existing: list[Existing]) -> list[Existing]:
    return sorted(existing, key=lambda found: (found.created_at, found.id), reverse=True)


def _differences(wanted: Wanted, current: Existing) -> list[Difference]:
    """Return what a person has to know: fields as the server has them beside those declared."""
    new = {"enabled": wanted.enabled, **wanted.spec.model_dump(mode="json", include=set(current.has))}
    old = {"enabled": current.enabled, **current.has}
    fields = [
        Difference(key, old[key], new[key]) for key in sorted(new) if key != "parameters" and old[key] != new[key]
    ]
    return fields + _changed_parameters(wanted, current.has.get("parameters", {}))


def _changed_parameters(wanted: Wanted, old: dict[str, Any]) -> list[Difference]:
    """Compare key by key; of a section that only one side overrides, only what is declared."""
    found = []
    for name in sorted({*old, *wanted.arguments}):
        left, right = old.get(name), wanted.arguments.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            keys = sorted({*left, *right})
            pairs = [(f"{name}.{key}", left.get(key), right.get(key)) for key in keys]
        elif isinstance(right, dict):
            declared = {k: v for k, v in wanted.spec.parameters.items() if k.startswith(f"{name}.")}
            pairs = [(key, None, value) for key, value in sorted(declared.items())]
        else:
            pairs = [(name, left, right)]
        found += [Difference(f"parameters.{key}", before, after) for key, before, after in pairs if before != after]
    return found
