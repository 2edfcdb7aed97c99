"""The page of one window: what was watched and what was found, in plain words; it loads nothing."""

from html import escape

import pyarrow as pa

from components.core.evidence import DriftTest, Evidence, Performance
from components.core.pages import page
from components.core.sections import Monitor
from components.core.verdict import Reason
from components.monitor import plots
from components.monitor.watched import WatchedModel

FELL = {True: ("failed", "✗ worse"), False: ("passed", "✓ held"), None: ("warned", "? unknown")}


def sentence(found: Evidence) -> str:
    """Say in one sentence what was measured."""
    span = f"{found.window.first:%Y-%m-%d} to {found.window.last:%Y-%m-%d}"
    head = f"{found.use_case} version {found.version}, {span}: {found.rows:,} predictions"
    if not found.rows:
        return f"{head}; nothing to judge"
    if found.broken:
        return f"{head}; the input is broken: {found.broken[0].message}"
    parts = []
    if found.drift is None:
        parts.append("too few to judge")
    else:
        count = sum(c.drifted for c in found.drift.columns)
        parts.append(f"{count} of {len(found.drift.columns)} inputs drifted")
    if found.prediction_drift is not None:
        parts.append("predictions drifted" if found.prediction_drift.drifted else "predictions did not drift")
    parts += [p.message for p in found.performance]
    return f"{head}; {'; '.join(parts)}"


def headline(found: Evidence) -> str:
    """Say the same without figures that the page shows below."""
    if found.broken:
        return f"The input is broken: {found.broken[0].message}"
    if found.drift is None:
        return f"{found.rows:,} predictions are too few to judge"
    count = sum(c.drifted for c in found.drift.columns)
    moved = found.prediction_drift is not None and found.prediction_drift.drifted
    worse = [p.message.partition(":")[0] for p in found.performance if p.fell]
    unknown = all(p.fell is None for p in found.performance)
    judged = ", ".join(worse) or ("no label tells how good they were" if unknown else "performance held")
    predictions = "the predictions did too" if moved else "the predictions did not"
    return f"{count} of {len(found.drift.columns)} inputs drifted, {predictions}; {judged}"


def render_page(found: Evidence, model: WatchedModel, rows: pa.Table, config: Monitor) -> str:
    """Return the HTML page of a window."""
    tone, badge, why = _badge(found)
    notes = "".join(f"<p class='quiet'>{escape(note)}.</p>" for note in found.notes)
    body = (
        f"<header class='{tone}'><p class='over'>{escape(found.use_case)} · version {found.version} in production</p>"
        f"<p class='badge'>{badge} <small>{why}</small></p><h1>{escape(headline(found))}</h1>"
        f"<p class='quiet'>Window {found.window.first:%Y-%m-%d} to {found.window.last:%Y-%m-%d} (UTC, the last day "
        f"not included), judged as of {found.as_of:%Y-%m-%d %H:%M}: {found.rows:,} predictions, "
        f"{found.labelled_rows:,} with a known label.</p>{notes}</header>"
        f"{_sanity(found.sanity)}{_performance(found.performance)}{_drift(found, config)}{_predictions(model, rows)}"
        f"{_origin(found, model)}"
    )
    return page(f"{found.use_case}: window of {found.window.first:%Y-%m-%d}", body)


def _badge(found: Evidence) -> tuple[str, str, str]:
    if found.broken:
        return "reject", "BROKEN", "nothing may be learned from this window"
    if found.drift is None:
        return "hold", "INSUFFICIENT", "too few predictions for a verdict"
    if any(p.fell for p in found.performance):
        return "reject", "WORSE", "than the gate had measured"
    if found.drift.drifted:
        return "hold", "DRIFTED", "the inputs moved; labels say how much that matters"
    return "promote", "STEADY", "nothing moved beyond what days do"


def _sanity(reasons: list[Reason]) -> str:
    if not reasons:
        return ""
    items = "".join(
        f"<li class='{_tone(r)}'><b>{escape(r.check)}</b><span>{escape(r.message)}</span><em>{_word(r)}</em></li>"
        for r in reasons
    )
    return f"<section><h2>Is the input sound?</h2><ul class='reasons'>{items}</ul></section>"


def _tone(reason: Reason) -> str:
    if reason.passed:
        return "passed"
    return "failed" if reason.severity == "critical" else "warned"


def _word(reason: Reason) -> str:
    return {"passed": "✓ sound", "failed": "✗ broken", "warned": "! look"}[_tone(reason)]


def _performance(measured: list[Performance]) -> str:
    if not measured:
        return ""
    items = "".join(
        f"<li class='{FELL[p.fell][0]}'><b>{escape(p.metric)}</b><span>{escape(p.message)}</span>"
        f"<em>{FELL[p.fell][1]}</em></li>"
        for p in measured
    )
    figure = plots.performance_plot(measured)
    shown = (
        f"<figure>{figure}<figcaption>Intervals come from resampled days. A metric got worse when the window is beyond "
        "the bad end of the gate's interval and its own interval excludes the gate's estimate.</figcaption></figure>"
        if figure
        else ""
    )
    return f"<section><h2>How good were the predictions?</h2><ul class='reasons'>{items}</ul>{shown}</section>"


def _drift(found: Evidence, config: Monitor) -> str:
    if found.drift is None:
        return ""
    words = _test_words(found.drift, config)
    predictions = (
        f" Predictions: p = {found.prediction_drift.p_value:.4f}, "
        f"{'drifted' if found.prediction_drift.drifted else 'not drifted'}."
        if found.prediction_drift
        else ""
    )
    return (
        f"<section><h2>Did the inputs move?</h2><figure>{plots.drift_plot(found.drift)}<figcaption>{words}{predictions}"
        "</figcaption></figure><p class='quiet'>Drift alone says that the world moved, not that the model suffers: "
        "seasons drift every year.</p></section>"
    )


def _test_words(test: DriftTest, config: Monitor) -> str:
    unit = "whole days" if test.blocks == "days" else "rows"
    return (
        f"Jensen-Shannon distance of {test.rows:,} rows on {test.days} days to {test.reference_rows:,} rows on "
        f"{test.reference_days} days of the reference. The limit of each column holds for all of them together at "
        f"{config.significance:.0%}, from {config.resamples:,} permutations of {unit} (p = {test.p_value:.4f})."
    )


def _predictions(model: WatchedModel, rows: pa.Table) -> str:
    if not rows.num_rows:
        return ""
    return (
        f"<section><h2>What was predicted?</h2><figure>{plots.prediction_plot(model, rows)}<figcaption>Share of "
        "predictions in the bins of the reference, on days that the model was not fitted on.</figcaption></figure>"
        "</section>"
    )


def _origin(found: Evidence, model: WatchedModel) -> str:
    card = model.card
    facts = {
        "model": found.model,
        "trained on": f"{card.rows:,} rows, {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}, as of {card.as_of:%Y-%m-%d}",
        "feature definitions": card.registry,
        "evidence": found.digest,
    }
    rows = "".join(f"<tr><th scope='row'>{k}</th><td><code>{escape(v)}</code></td></tr>" for k, v in facts.items())
    return f"<section><h2>What was watched</h2><table class='facts'><tbody>{rows}</tbody></table></section>"
