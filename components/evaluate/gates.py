"""The decision: a pure function of measurements and configuration.

    reject    the model is broken, or shown to be worse than allowed
    hold      the holdout cannot tell; more days, or a person, can
    promote   every check passed

Too little data turns every statistical rejection into hold: few rows prove nothing in either direction.
"""

from typing import Literal

from components.core.bootstrap import Interval
from components.core.sections import Evaluate
from components.core.verdict import Reason, Verdict
from components.evaluate.measurements import Fairness, Measurements, Model
from components.evaluate.wording import METRIC_NAMES, number, range_text

Outcome = Literal["pass", "hold", "reject"]
Check = tuple[Outcome, Reason]

MIN_DAYS = 7
"""Fewer blocks do not carry an interval: with 5, 14 and 21 days 77, 89 and 91 % of nominal 95 % intervals held where
the day explained most of the label, with 7 days 84 %. A week also holds every weekday once."""


def decide(measurements: Measurements, config: Evaluate, *, subject: str) -> Verdict:
    """Return the verdict on the model whose digest is `subject`, with one reason per check."""
    if measurements.defects:
        checks = [check_defect(text) for text in measurements.defects]
        enough = True
    else:
        amount = check_amount(measurements, config)
        enough = amount[0] == "pass"
        checks = [
            amount,
            check_lift(measurements, config),
            *check_gain(measurements, config),
            *check_novelty(measurements, subject),
            *check_calibration(measurements, config),
            *check_slices(measurements, config),
            *(check_fairness(f, config) for f in measurements.fairness),
            *check_leakage(measurements, config),
        ]
    outcomes = {outcome for outcome, _ in checks}
    worst: Outcome = "reject" if "reject" in outcomes else "hold" if "hold" in outcomes else "pass"
    if worst == "reject" and not enough:
        worst = "hold"
    reasons = [reason for _, reason in checks] + [information(note) for note in measurements.notes]
    return Verdict(
        gate="evaluate",
        subject=subject,
        decision="promote" if worst == "pass" else worst,
        reasons=reasons,
    )


def check_defect(text: str) -> Check:
    return "reject", Reason(check="predictions", passed=False, message=text)


def check_amount(m: Measurements, config: Evaluate) -> Check:
    """Require enough labelled rows and days in the holdout."""
    passed = m.rows >= config.min_rows and m.days >= MIN_DAYS
    message = f"{m.rows:,} labelled rows on {m.days} days"
    if not passed:
        message = f"too little to tell: {message}, at least {config.min_rows:,} rows and {MIN_DAYS} days are needed"
    return "pass" if passed else "hold", Reason(
        check="amount",
        passed=passed,
        message=message,
        measured={"rows": m.rows, "days": m.days},
        allowed={"rows": config.min_rows, "days": MIN_DAYS},
    )


def check_lift(m: Measurements, config: Evaluate) -> Check:
    """Require the challenger to beat the cheap baseline, by the lower bound of the difference."""
    name = METRIC_NAMES[m.metric]
    baseline = m.baseline.name if m.baseline else "baseline"
    shown = f"improvement of {name} over the {baseline}: {range_text(m.lift, signed=True)}"
    if m.lift.estimate is None or m.lift.low is None:
        outcome: Outcome = "hold"
        message = f"cannot compare with the {baseline}: {name} or its interval is not defined on this holdout"
    elif m.lift.estimate <= config.min_lift:
        outcome, message = "reject", f"not better than the {baseline}: {shown}"
    elif m.lift.low <= config.min_lift:
        outcome, message = "hold", f"cannot tell: {shown}; the interval reaches {number(config.min_lift)}"
    else:
        outcome, message = "pass", shown
    return outcome, _reason("baseline", outcome, message, m.lift, f"lower bound > {number(config.min_lift)}")


def check_gain(m: Measurements, config: Evaluate) -> list[Check]:
    """Require the challenger to be no worse than the champion within the margin, and not worse by its estimate."""
    if m.champion is None:
        return [("pass", information("no champion yet: compared with the baseline only", check="champion"))]
    champion = f"champion version {m.champion.version}"
    allowed = f"lower bound > {number(-config.margin)} and estimate >= 0"
    checks = [_signature(m)]
    name = METRIC_NAMES[m.metric]
    shown = f"improvement of {name} over {champion}: {range_text(m.gain, signed=True)}"
    outcome: Outcome = "hold"
    if m.champion.obstacle:
        message = f"cannot compare with {champion}: {m.champion.obstacle}"
    elif m.gain.estimate is None or m.gain.low is None or m.gain.high is None:
        message = f"cannot compare with {champion}: {name} or its interval is not defined on this holdout"
    elif m.gain.high < -config.margin:
        outcome, message = "reject", f"worse than allowed: {shown}, the margin is {number(config.margin)}"
    elif m.gain.low <= -config.margin:
        message = f"cannot tell: {shown}; the interval reaches beyond the margin of {number(config.margin)}"
    elif m.gain.estimate < 0:
        message = f"nothing to gain: {shown}; within the margin of {number(config.margin)}, but not better"
    else:
        outcome, message = "pass", shown
    return [(outcome, _reason("champion", outcome, message, m.gain, allowed)), *checks]


def check_novelty(m: Measurements, subject: str) -> list[Check]:
    """Hold a challenger that is the champion's own model: promoting it would change nothing but the version."""
    if m.champion is None or m.champion.model != subject:
        return []
    message = f"nothing new: this is the model of champion version {m.champion.version}, to the bit"
    return [("hold", Reason(check="novelty", passed=False, message=message, measured=subject[:12]))]


def _signature(m: Measurements) -> Check:
    """Report inputs that callers must add or may drop; the request contract is checked again by the probe."""
    added = m.champion.added_inputs if m.champion else []
    removed = m.champion.removed_inputs if m.champion else []
    same = not added and not removed
    message = (
        "the inputs are those of the champion"
        if same
        else f"the inputs differ from the champion's: added {', '.join(added) or 'none'}; "
        f"removed {', '.join(removed) or 'none'}"
    )
    measured = {"added": added, "removed": removed}
    severity: Literal["info", "warning"] = "info" if same else "warning"
    return "pass", Reason(check="signature", passed=same, severity=severity, message=message, measured=measured)


def check_calibration(m: Measurements, config: Evaluate) -> list[Check]:
    """Limit the expected calibration error."""
    if m.challenger is None or "ece" not in m.challenger.metrics:
        return []
    error, limit = m.challenger.metrics["ece"], config.max_calibration_error
    message = f"calibration error {range_text(error)}"
    if limit is None:
        return [("pass", information(message, check="calibration"))]
    outcome = _limited(error, limit)
    return [(outcome, _reason("calibration", outcome, _against(message, outcome, limit), error, number(limit)))]


def check_slices(m: Measurements, config: Evaluate) -> list[Check]:
    """Reject when a slice is worse than the margin for sure, over all slices together."""
    if m.slices is None:
        return []
    worse = [s for s in m.slices.slices if s.difference.high is not None and s.difference.high < -config.slice_margin]
    total, confidence = len(m.slices.slices), f"{config.confidence:.0%}"
    message = (
        f"{len(worse)} of {total} slices are worse than the {m.slices.reference} by more than "
        f"{number(config.slice_margin)} (intervals that hold for all slices together with {confidence})"
    )
    if worse:
        message += ": " + ", ".join(f"{s.column} {s.value} {range_text(s.difference, signed=True)}" for s in worse[:5])
    outcome: Outcome = "reject" if worse else "pass"
    measured = [f"{s.column}={s.value}" for s in worse]
    return [
        (
            outcome,
            Reason(check="slices", passed=not worse, message=message, measured=measured, allowed=-config.slice_margin),
        )
    ]


def check_fairness(fairness: Fairness, config: Evaluate) -> Check:
    """Limit the difference between groups, where a limit is set."""
    limit = config.fairness.max_difference
    message = f"{fairness.measure} between groups of {fairness.column}: {range_text(fairness.difference)}"
    if limit is None:
        return "pass", information(message, check="fairness")
    if len(fairness.groups) < 2:  # noqa: PLR2004
        text = f"cannot tell: fewer than two groups of {fairness.column} have {config.min_slice_rows} rows"
        return "hold", _reason("fairness", "hold", text, fairness.difference, number(limit))
    outcome = _limited(fairness.difference, limit)
    return outcome, _reason("fairness", outcome, _against(message, outcome, limit), fairness.difference, number(limit))


def check_leakage(m: Measurements, config: Evaluate) -> list[Check]:
    """Limit the advantage of a random split, where a limit is set."""
    limit = config.leakage.max_gap
    if m.leakage is None:
        if limit is None:
            return []
        text = "cannot tell: a random and a time split cannot be compared on these rows"
        return [("hold", Reason(check="leakage", passed=False, message=text, allowed=limit))]
    name = METRIC_NAMES[m.metric]
    message = (
        f"a random split would show {name} {number(m.leakage.random_split)} instead of "
        f"{number(m.leakage.time_split)}, better by {number(m.leakage.gap, signed=True)}"
    )
    if limit is None:
        return [("pass", information(message, check="leakage"))]
    outcome: Outcome = "reject" if m.leakage.gap > limit else "pass"
    text = f"{message}; allowed is {number(limit)}"
    return [
        (
            outcome,
            Reason(check="leakage", passed=outcome == "pass", message=text, measured=m.leakage.gap, allowed=limit),
        )
    ]


def information(message: str, *, check: str = "note") -> Reason:
    """Return a reason that decides nothing."""
    return Reason(check=check, passed=True, severity="info", message=message)


def _limited(error: Interval, limit: float) -> Outcome:
    if error.estimate is None:
        return "hold"
    if error.estimate <= limit:
        return "pass"
    return "reject" if error.low is not None and error.low > limit else "hold"


def _against(message: str, outcome: Outcome, limit: float) -> str:
    words = {
        "pass": f"{message}; allowed is {number(limit)}",
        "hold": f"cannot tell: {message}, not clearly below or above the allowed {number(limit)}",
        "reject": f"{message} is above the allowed {number(limit)}",
    }
    return words[outcome]


def _reason(check: str, outcome: Outcome, message: str, measured: Interval, allowed: str) -> Reason:
    return Reason(
        check=check, passed=outcome == "pass", message=message, measured=measured.model_dump(), allowed=allowed
    )


def sentence(verdict: Verdict, measurements: Measurements, *, version: int) -> str:
    """Say the decision and what carried it, in one sentence."""
    verb = {"promote": "Promote", "hold": "Hold", "reject": "Reject"}[verdict.decision]
    failed = [r for r in verdict.reasons if not r.passed and r.severity == "critical"]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{verb} version {version}: {failed[0].message}{more}."
    model: Model | None = measurements.challenger
    value = range_text(model.metrics[measurements.metric]) if model else "unknown"
    against = (
        f"{range_text(measurements.lift, signed=True)} better than the {measurements.baseline.name}"
        if (measurements.baseline)
        else "no comparison"
    )
    if measurements.champion and measurements.gain.estimate is not None:
        against = (
            f"{range_text(measurements.gain, signed=True)} better than champion version {measurements.champion.version}"
        )
    return (
        f"{verb} version {version}: {METRIC_NAMES[measurements.metric]} {value} on {measurements.rows:,} rows of "
        f"{measurements.days} days it has never seen, {against}."
    )
