"""What a reviewer of a release reads: the gate's report, the model's card, and what changes for those it answers."""

from collections.abc import Mapping
from typing import Any

from components.core.bundle import ModelCard
from components.core.digests import json_digest
from components.core.errors import DataError
from components.core.ledger.releases import KeptRelease
from components.core.verdict import Verdict


def review(kept: KeptRelease, before: KeptRelease | None, serving: int | None, *, source: str, target: str) -> str:
    """Return the review of a release as Markdown; `before` is what `target` serves now, as far as it is known.

    Raises DataError when the kept verdict is not the one that the release names.
    """
    verdict, release = Verdict.model_validate_json(kept.verdict), kept.release
    found = json_digest(verdict.model_dump(mode="json"))
    if found != release.verdict:
        raise DataError(
            "the verdict at hand is not the one that promoted this release",
            measured=found[:12],
            allowed=release.verdict[:12],
        )
    parts = [
        f"## {release.use_case}: version {release.model_version} from {source} to {target}",
        str(verdict.evidence.get("sentence", "")),
        "## What changes\n" + _changes(verdict, before, serving, target),
        "## Gate\n" + _gate(verdict),
        "## Model\n" + _model(ModelCard.model_validate_json(kept.card)),
        "## Release\n" + _release(kept),
    ]
    return "\n\n".join(part for part in parts if part).replace("Driftline-", "Driftline ")


def _changes(verdict: Verdict, before: KeptRelease | None, serving: int | None, target: str) -> str:
    new = _metrics(verdict, "challenger")
    if serving is None:
        return f"Nothing serves in {target} yet.\n\n" + _table(
            ["metric", "new"], [[n, _number(v)] for n, v in new.items()]
        )
    if verdict.evidence.get("champion_version") == serving:
        old, where = _metrics(verdict, "champion_model"), "Both on the same held-out rows."
    elif before is not None:
        old = _metrics(Verdict.model_validate_json(before.verdict), "challenger")
        where = "Each on the rows held out when it was trained: other rows, so a small difference means little."
    else:
        old, where = {}, f"What version {serving} measured is not recorded."
    rows = [
        [name, _number(old.get(name)), _number(value), _number(_difference(value, old.get(name)), signed=True)]
        for name, value in new.items()
    ]
    return f"{where}\n\n" + _table(["metric", f"version {serving}, serves now", "new", "difference"], rows)


def _metrics(verdict: Verdict, model: str) -> Mapping[str, float]:
    measured = verdict.evidence.get("measurements") or {}
    found = (measured.get(model) or {}).get("metrics") or {}
    return {name: value["estimate"] for name, value in found.items() if value and value.get("estimate") is not None}


def _gate(verdict: Verdict) -> str:
    rows = [
        [reason.check, "pass" if reason.passed else f"**no** ({reason.severity})", reason.message]
        + [_cell(value) for value in (reason.measured, reason.allowed)]
        for reason in verdict.reasons
    ]
    return f"Decision: **{verdict.decision}**\n\n" + _table(["check", "", "", "measured", "allowed"], rows)


def _model(card: ModelCard) -> str:
    rows = [
        ["trained by", card.trainer.get("kind", "")],
        ["rows", f"{card.rows:,}, {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}"],
        ["held out from", f"{card.holdout_from:%Y-%m-%d}"],
        ["as of", f"{card.as_of:%Y-%m-%d %H:%M} UTC"],
        ["code", f"`{card.code[:12] or 'outside a checkout'}`"],
        ["training set", f"`{card.training_set[:12]}`"],
        ["data", f"`{card.snapshot[:12]}`"],
    ]
    return _table(["", ""], rows) + "".join(f"\n\n> {_cell(note)}" for note in card.notes)


def _release(kept: KeptRelease) -> str:
    release = kept.release
    rows = [
        ["model", f"`{release.model}`"],
        ["Bento", f"`{release.bento.tag}`, `{release.bento.digest}`"],
        ["image", f"`{release.image.repository}@{release.image.digest}`"],
        ["verdict", f"`{release.verdict}`"],
        ["run", f"`{release.run_id}`: `driftline why {release.run_id}`"],
    ]
    return _table(["", ""], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Return a value as one table cell: data may hold bars, line ends and markup of its own."""
    if value is None:
        return ""
    if isinstance(value, float):
        return _number(value)
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")[:500]


def _number(value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else f"{value:+.4g}" if signed else f"{value:.4g}"


def _difference(new: float, old: float | None) -> float | None:
    return None if old is None else new - old
