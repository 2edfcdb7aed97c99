"""Sanity: whether the input is broken, which is another thing than drifted: nothing may be learned from it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.bundle import Encoding
from components.core.inference_log import INPUT
from components.core.metrics import Floats
from components.core.training_set import Input
from components.core.verdict import Reason
from components.monitor.feeds import find_frozen, find_nulls
from components.monitor.finding import Finding, as_reason
from components.monitor.history import History, make_history
from components.monitor.levels import find_levels
from components.monitor.periods import summarise
from components.monitor.ranges import find_impossible
from components.monitor.triage import explain_numbers
from components.monitor.watched import WatchedModel

CHECKS = {
    "schema": "every input of the model is in the log, in its kind",
    "feeds": "no feed stopped",
    "nulls": "no input is missing more often than before",
    "frozen": "no feed repeats its last values",
    "units": "no number changed its unit",
    "swaps": "no two columns were exchanged",
    "categories": "the model knows the categories",
    "ranges": "no value is infinite or impossible",
}


def check_sanity(model: WatchedModel, window: pa.Table, past: pa.Table) -> list[Reason]:
    """Return a reason per finding, worst first, and one for every check that found nothing.

    `window` and `past` are rows of the inference log. A window is compared with the days before it; where the log has
    too few of them, with the sample of the reference. Each message names column, value, limit and probable cause.
    """
    faults = _check_schema(model.spec.inputs, window)
    inputs = [column for column in model.spec.inputs if column.name not in faults]
    history = make_history(
        summarise(model.reference, inputs, prefix="", instant="event_timestamp"),
        summarise(past, inputs, prefix=INPUT, instant="as_of"),
        summarise(window, inputs, prefix=INPUT, instant="as_of"),
    )
    reasons = judge_history(history, inputs, model.encoding, stale=_stale_shares(history, window, inputs))
    # A fault of the schema replaces the word that the schema is sound.
    return list(faults.values()) + [reason for reason in reasons if not faults or reason.check != "schema"]


def judge_history(
    history: History, inputs: Sequence[Input], encoding: Encoding, *, stale: Mapping[str, Floats]
) -> list[Reason]:
    """Return a reason per finding in a history's window, worst first, then one for every check that found nothing.

    `stale` is, per input, the share of each period's rows whose value was too old to be used; none where unknown.
    """
    causes = [*_numbers(history), *find_levels(history, encoding)]
    findings = [
        *causes,
        *find_nulls(history, inputs, stale),
        *_without_consequences(causes, [*find_frozen(history, inputs), *find_impossible(history)]),
    ]
    reasons = [reason for finding in findings if (reason := as_reason(finding, history)) is not None]
    found = {reason.check for reason in reasons}
    reasons.sort(key=lambda reason: (reason.severity != "critical", list(CHECKS).index(reason.check)))
    passed = [Reason(check=name, passed=True, message=text) for name, text in CHECKS.items() if name not in found]
    return reasons + passed


def _check_schema(inputs: Sequence[Input], window: pa.Table) -> dict[str, Reason]:
    """Return what is wrong with inputs that the log lacks, or holds in another kind."""
    faults = {}
    for column in inputs:
        name = INPUT + column.name
        kind = window.schema.field(name).type if name in window.column_names else None
        wanted = "text" if column.kind == "category" else "a number"
        fits = kind is not None and (column.kind == "category") == (pa.types.is_string(kind) or pa.types.is_null(kind))
        if not fits:
            told = "is not in the log at all" if kind is None else f"is {kind} in the log"
            message = f"{column.name} {told}, and the model reads {wanted}; probably the column was renamed or retyped"
            faults[column.name] = Reason(
                check="schema", passed=False, message=message, measured=str(kind or "absent"), allowed=wanted
            )
    return faults


def _numbers(history: History) -> list[Finding]:
    """Turn explanations into findings: one per column with another unit, one per pair of swapped columns."""
    findings = []
    for found in explain_numbers(history):
        a, b, periods = found.column, found.what, tuple(found.periods)
        if found.cause == "unit":
            message = (
                f"{a} changed its unit: the median is {_median(history, a, periods)}, before it was "
                f"{_median(history, a)}; undoing {b} explains it best; probably the source switched units"
            )
            findings.append(Finding("units", (a,), periods, message, b))
        elif a < b:
            message = (
                f"{a} and {b} are swapped: medians are {_median(history, a, periods)} and "
                f"{_median(history, b, periods)}, before they were {_median(history, a)} and {_median(history, b)}; "
                "probably two columns were exchanged"
            )
            findings.append(Finding("swaps", (a, b), periods, message, f"{a} ↔ {b}"))
    return findings


def _without_consequences(causes: list[Finding], consequences: list[Finding]) -> list[Finding]:
    """Return the findings that are not explained by what happened to all of their columns."""
    explained = {name for finding in causes for name in finding.columns}
    return [finding for finding in consequences if not explained.issuperset(finding.columns)]


def _median(history: History, column: str, periods: Sequence[int] | None = None) -> str:
    numbers = history.periods.numbers[column].quantiles
    chosen = numbers[list(periods)] if periods is not None else numbers[: history.window.start]
    return f"{np.nanmedian(chosen[:, chosen.shape[1] // 2]):.4g}"


def _stale_shares(history: History, window: pa.Table, inputs: Sequence[Input]) -> Mapping[str, Floats]:
    """Return, per input, the share of each period's rows whose value was too old to be used."""
    table = window.sort_by("as_of")
    named = table.column("stale").combine_chunks()
    names, parents = pc.list_flatten(named), pc.list_parent_indices(named).to_numpy()
    period = history.periods.of_row[-table.num_rows :]
    rows = np.maximum(1, history.periods.rows)
    shares = {}
    for column in inputs:
        hit = parents[pc.equal(names, column.name).to_numpy(zero_copy_only=False)] if len(names) else parents
        counts = np.bincount(period[hit], minlength=len(rows)) if len(hit) else np.zeros(len(rows))
        shares[column.name] = np.asarray(counts / rows, dtype=np.float64)
    return shares
