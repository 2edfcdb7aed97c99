"""The report of an evaluation: one self-contained HTML page that opens with the decision."""

from html import escape

from components.core.bootstrap import Interval
from components.core.pages import page
from components.core.sections import Evaluate, Problem
from components.core.verdict import Reason, Verdict
from components.evaluate import plots
from components.evaluate.bars import common_scale, interval_bar
from components.evaluate.gates import sentence
from components.evaluate.judging import Judgement
from components.evaluate.measurements import Fairness, Measurements
from components.evaluate.wording import METRIC_NAMES, RATE_NAMES, number, range_text

MAX_SLICES = 40
DECISIONS = {
    "promote": "every check passed",
    "hold": "the holdout cannot tell",
    "reject": "worse than allowed",
    "pass": "",
}


def render_report(use_case: str, problem: Problem, config: Evaluate, judgement: Judgement) -> str:
    """Return the HTML page; it loads nothing and prints on A4."""
    measured, verdict, card = judgement.measurements, judgement.verdict, judgement.card
    decision = verdict.decision
    dates = judgement.holdout.dates
    span = f"{dates[0]} to {dates[-1]}" if dates else "no days"
    sections = [
        _reasons(verdict),
        _models(measured, config),
        _plots(problem, config, judgement),
        _slices(measured, config),
        _fairness(measured.fairness, config),
        _inputs(measured),
        _origin(judgement),
    ]
    title = f"{use_case}: {decision} version {card.version}"
    return page(
        title,
        f"<header class='{decision}'><p class='over'>{escape(use_case)} · evaluation of version {card.version}</p>"
        f"<p class='badge'>{decision.upper()} <small>{DECISIONS[decision]}</small></p>"
        f"<h1>{escape(sentence(verdict, measured, version=card.version))}</h1>"
        f"<p class='quiet'>Holdout {span}: {measured.rows:,} rows on {measured.days} days. Intervals are "
        f"{config.confidence:.0%}, from {config.bootstrap_samples:,} resamples of whole days.</p></header>"
        f"{''.join(sections)}",
    )


def _reasons(verdict: Verdict) -> str:
    ordered = sorted(verdict.reasons, key=lambda r: (r.passed, r.severity == "info"))
    rows = "".join(
        f"<li class='{_tone(r)}'><b>{escape(r.check)}</b><span>{escape(r.message)}</span><em>{_word(r)}</em></li>"
        for r in ordered
    )
    return f"<section><h2>Reasons</h2><ul class='reasons'>{rows}</ul></section>"


def _tone(reason: Reason) -> str:
    if not reason.passed:
        return "failed" if reason.severity == "critical" else "warned"
    return "told" if reason.severity == "info" else "passed"


def _word(reason: Reason) -> str:
    return {"failed": "✗ failed", "warned": "! look", "told": "reported", "passed": "✓ passed"}[_tone(reason)]


def _models(measured: Measurements, config: Evaluate) -> str:
    models = [m for m in (measured.challenger, measured.champion_model, measured.baseline) if m]
    if not models:
        return ""
    head = "".join(f"<th scope='col'>{escape(m.name)}</th>" for m in models)
    body = "".join(
        f"<tr><th scope='row'>{METRIC_NAMES[metric]}{' ★' if metric == measured.metric else ''}</th>"
        + "".join(f"<td>{range_text(m.metrics[metric])}</td>" for m in models)
        + "</tr>"
        for metric in models[0].metrics
    )
    compared: list[tuple[str, Interval, float]] = []
    if measured.baseline:
        compared.append((measured.baseline.name, measured.lift, config.min_lift))
    if measured.champion_model:
        compared.append((measured.champion_model.name, measured.gain, -config.margin))
    scale = common_scale((c[1] for c in compared), (c[2] for c in compared))
    differences = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{range_text(found, signed=True)}</td>"
        f"<td>{interval_bar(found, scale, limit=limit)}</td><td>{number(limit, signed=True)}</td></tr>"
        for name, found, limit in compared
    )
    return (
        f"<section><h2>How good is it?</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<h3>Improvement of {METRIC_NAMES[measured.metric]} over</h3><table><thead><tr><th></th>"
        f"<th scope='col'>difference</th><th scope='col' class='bars'>interval</th>"
        f"<th scope='col'>lower bound must exceed</th></tr>"
        f"</thead><tbody>{differences}</tbody></table><p class='quiet'>★ the metric that decides. Both models of a "
        f"pair are measured on the same resampled days.</p></section>"
    )


def _plots(problem: Problem, config: Evaluate, judgement: Judgement) -> str:
    if judgement.measurements.challenger is None:
        return ""
    classification = problem.task == "classification"
    both = len(set(judgement.holdout.labels.tolist())) > 1
    figures = []
    if classification and both:
        figures.append((plots.roc_plot(judgement), "Every threshold's trade-off."))
    reliability = plots.reliability_plot(judgement, config.confidence)
    figures.append((reliability, "On the diagonal, predictions mean what they say."))
    figures.append(
        (
            plots.histogram_plot(judgement, problem.task),
            "How far apart the classes are." if classification else "A peak beside zero is bias.",
        )
    )
    wide = (plots.daily_plot(judgement, config.metric), "Days differ more than rows: this is why days are resampled.")
    shown = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in figures)
    return (
        f"<section><h2>Curves</h2><div class='grid'>{shown}</div>"
        f"<figure>{wide[0]}<figcaption>{wide[1]}</figcaption></figure></section>"
    )


def _slices(measured: Measurements, config: Evaluate) -> str:
    if measured.slices is None:
        return ""
    found = measured.slices.slices
    scale = common_scale((s.difference for s in found), (-config.slice_margin,))
    rows = "".join(
        f"<tr><th scope='row'>{escape(s.column)} <b>{escape(s.value)}</b></th><td>{s.rows:,}</td>"
        f"<td>{number(s.challenger)}</td><td>{number(s.reference)}</td>"
        f"<td>{range_text(s.difference, signed=True)}</td>"
        f"<td>{interval_bar(s.difference, scale, limit=-config.slice_margin)}</td></tr>"
        for s in found[:MAX_SLICES]
    )
    more = f" The {len(found) - MAX_SLICES} best slices are not shown." if len(found) > MAX_SLICES else ""
    return (
        f"<section><h2>Slices</h2><table><thead><tr><th></th><th scope='col'>rows</th>"
        f"<th scope='col'>{METRIC_NAMES[measured.metric]}</th><th scope='col'>before</th>"
        f"<th scope='col'>improvement</th><th scope='col' class='bars'>interval</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        f"<p class='quiet'>Worst first; before: the {escape(measured.slices.reference)}. The intervals of all "
        f"{len(found)} slices hold together with "
        f"{config.confidence:.0%}, so a long list raises no alarm by its length; the dashed line is the slice margin. "
        f"{measured.slices.left_out} values with fewer than {config.min_slice_rows:,} rows or with one class are left "
        f"out.{more}</p></section>"
    )


def _fairness(fairness: list[Fairness], config: Evaluate) -> str:
    tables = []
    for found in fairness:
        rates = list(found.groups[0].rates) if found.groups else []
        head = "".join(f"<th scope='col'>{RATE_NAMES[r]}</th>" for r in rates)
        rows = "".join(
            f"<tr><th scope='row'>{escape(g.value)}</th><td>{g.rows:,}</td>"
            + "".join(f"<td>{number(g.rates[r])}</td>" for r in rates)
            + "</tr>"
            for g in found.groups
        )
        tables.append(
            f"<h3>{escape(found.column)}: {found.measure} {range_text(found.difference)}</h3>"
            f"<table><thead><tr><th></th><th scope='col'>rows</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )
    if not tables:
        return ""
    limit = config.fairness.max_difference
    rule = "Reported, not gated." if limit is None else f"Allowed is {number(limit)}."
    return f"<section><h2>Groups</h2>{''.join(tables)}<p class='quiet'>{rule}</p></section>"


def _inputs(measured: Measurements) -> str:
    if not measured.importances:
        return ""
    plot = plots.importance_plot(measured.importances, measured.metric)
    table = ""
    if measured.importances[0].contribution is not None:
        rows = "".join(
            f"<tr><th scope='row'>{escape(i.name)}</th><td>{number(i.drop, signed=True)}</td>"
            f"<td>{number(i.contribution)}</td></tr>"
            for i in measured.importances
        )
        table = (
            "<details><summary>All inputs, with tree contributions</summary><table><thead><tr><th></th>"
            "<th scope='col'>loss when shuffled</th><th scope='col'>mean |contribution| to the raw score</th></tr>"
            f"</thead><tbody>{rows}</tbody></table></details>"
        )
    return (
        f"<section><h2>What it looks at</h2><figure>{plot}<figcaption>Inputs that say the same share their importance: "
        f"each alone looks small.</figcaption></figure>{table}</section>"
    )


def _origin(judgement: Judgement) -> str:
    card, champion = judgement.card, judgement.measurements.champion
    facts = {
        "model": card.model,
        "training set": card.training_set,
        "snapshot": card.snapshot,
        "feature definitions": card.registry,
        "code": card.code or "outside a checkout",
        "MLflow run": card.mlflow_run,
        "as of": f"{card.as_of:%Y-%m-%d %H:%M} UTC",
        "trained on": f"{card.rows:,} rows, {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}, {card.device}",
        "champion": f"version {champion.version}, {champion.model}" if champion else "none",
    }
    rows = "".join(f"<tr><th scope='row'>{k}</th><td><code>{escape(str(v))}</code></td></tr>" for k, v in facts.items())
    return f"<section><h2>Where it comes from</h2><table class='facts'><tbody>{rows}</tbody></table></section>"
