"""Each check's three outcomes."""

from typing import Any

import pytest

from components.core.bootstrap import Interval
from components.core.sections import Evaluate, Fairness, Leakage
from components.core.verdict import Verdict
from components.evaluate import measurements as measured
from components.evaluate.gates import MIN_DAYS, decide, sentence
from components.evaluate.measurements import Measurements


def span(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high)


def figures(**changes: Any) -> Measurements:
    """Return measurements that pass every check against a champion."""
    base: dict[str, Any] = {
        "metric": "auc",
        "rows": 5000,
        "days": 21,
        "challenger": measured.Model(
            name="version 8", metrics={"auc": span(0.7, 0.72, 0.74), "ece": span(0, 0.02, 0.03)}
        ),
        "baseline": measured.Model(name="logistic regression", metrics={"auc": span(0.55, 0.6, 0.62)}),
        "champion": measured.Champion(version=5, model="c" * 64, added_inputs=[], removed_inputs=[]),
        "lift": span(0.08, 0.12, 0.15),
        "gain": span(0.001, 0.004, 0.008),
    }
    return Measurements(**{**base, **changes})


def settings(**changes: Any) -> Evaluate:
    return Evaluate(**{"margin": 0.005, "max_calibration_error": 0.05, **changes})


def judged(config: Evaluate | None = None, **changes: Any) -> Verdict:
    return decide(figures(**changes), config or settings(), subject="d" * 64)


def failed(verdict: Verdict) -> list[str]:
    return [r.check for r in verdict.reasons if not r.passed and r.severity == "critical"]


def test_a_model_that_passes_everything_is_promoted() -> None:
    verdict = judged()
    assert (verdict.decision, verdict.approved, verdict.gate, verdict.subject) == (
        "promote",
        True,
        "evaluate",
        "d" * 64,
    )
    assert sentence(verdict, figures(), version=8) == (
        "Promote version 8: AUC 0.720 [0.700, 0.740] on 5,000 rows of 21 days it has never seen, "
        "+0.0040 [+0.0010, +0.0080] better than champion version 5."
    )


@pytest.mark.parametrize(
    ("lift", "decision"),
    [
        (span(0.001, 0.02, 0.03), "promote"),
        (span(-0.001, 0.02, 0.03), "hold"),
        (span(0.0, 0.02, 0.03), "hold"),
        (span(-0.03, 0.0, 0.03), "reject"),
        (span(-0.03, -0.02, -0.01), "reject"),
        (Interval(estimate=0.02), "hold"),
        (Interval(estimate=None), "hold"),
    ],
)
def test_lift_over_the_baseline(lift: Interval, decision: str) -> None:
    verdict = judged(lift=lift)
    assert verdict.decision == decision
    assert failed(verdict) == ([] if decision == "promote" else ["baseline"])


@pytest.mark.parametrize(
    ("gain", "decision", "words"),
    [
        (span(-0.004, 0.001, 0.006), "promote", "improvement of AUC"),
        (span(-0.004, 0.0, 0.006), "promote", "improvement of AUC"),
        (span(-0.004, -0.001, 0.006), "hold", "nothing to gain"),
        (span(-0.006, 0.001, 0.008), "hold", "cannot tell"),
        (span(-0.028, -0.011, 0.005), "hold", "cannot tell"),
        (span(-0.028, -0.011, -0.004), "hold", "cannot tell"),
        (span(-0.028, -0.011, -0.006), "reject", "worse than allowed"),
        (Interval(estimate=None), "hold", "not defined"),
    ],
)
def test_difference_to_the_champion(gain: Interval, decision: str, words: str) -> None:
    verdict = judged(gain=gain)
    assert verdict.decision == decision
    (reason,) = [r for r in verdict.reasons if r.check == "champion"]
    assert words in reason.message


def test_without_margin_the_same_model_again_is_held() -> None:
    assert judged(settings(margin=0.0), gain=span(0, 0, 0)).decision == "hold"


def test_a_first_model_is_compared_with_the_baseline_only() -> None:
    verdict = judged(champion=None, gain=Interval(estimate=None))
    assert verdict.decision == "promote"
    assert any("no champion yet" in r.message for r in verdict.reasons)


def test_a_champion_that_cannot_run_holds_instead_of_being_ignored() -> None:
    champion = measured.Champion(
        version=5, model="c" * 64, added_inputs=[], removed_inputs=["x"], obstacle="the training set lacks x"
    )
    verdict = judged(champion=champion, gain=Interval(estimate=None))
    assert verdict.decision == "hold"
    assert "cannot compare with champion version 5: the training set lacks x" in verdict.reasons[2].message


def test_changed_inputs_are_shown_but_decide_nothing() -> None:
    champion = measured.Champion(version=5, model="c" * 64, added_inputs=["wind"], removed_inputs=["rain"])
    verdict = judged(champion=champion)
    (reason,) = [r for r in verdict.reasons if r.check == "signature"]
    assert (verdict.decision, reason.passed, reason.severity) == ("promote", False, "warning")
    assert reason.measured == {"added": ["wind"], "removed": ["rain"]}


@pytest.mark.parametrize("amount", [{"rows": 999}, {"days": MIN_DAYS - 1}, {"rows": 0, "days": 0}])
def test_too_little_data_holds_even_what_looks_bad(amount: dict[str, int]) -> None:
    verdict = judged(**amount, lift=span(-0.4, -0.3, -0.2), gain=span(-0.4, -0.3, -0.2))
    assert verdict.decision == "hold"
    assert failed(verdict)[0] == "amount"


def test_a_broken_model_is_rejected_whatever_the_data() -> None:
    verdict = judged(rows=3, days=1, defects=["the challenger predicts values that are not finite"])
    assert (verdict.decision, failed(verdict)) == ("reject", ["predictions"])


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (span(0.0, 0.05, 0.09), "promote"),
        (span(0.04, 0.06, 0.09), "hold"),
        (span(0.051, 0.06, 0.09), "reject"),
        (Interval(estimate=0.06), "hold"),
        (Interval(estimate=None), "hold"),
    ],
)
def test_calibration(error: Interval, decision: str) -> None:
    model = measured.Model(name="version 8", metrics={"auc": span(0.7, 0.72, 0.74), "ece": error})
    assert judged(challenger=model).decision == decision
    assert judged(settings(max_calibration_error=None), challenger=model).decision == "promote"


def slices(*differences: Interval) -> measured.Slices:
    found = [
        measured.Slice(column="carrier", value=f"C{k}", rows=600, challenger=0.6, reference=0.7, difference=d)
        for k, d in enumerate(differences)
    ]
    return measured.Slices(reference="champion (version 5)", slices=found, left_out=2)


def test_a_slice_that_is_worse_for_sure_rejects_and_is_named() -> None:
    verdict = judged(slices=slices(span(-0.2, -0.1, -0.06), span(-0.2, -0.1, -0.04)))
    assert (verdict.decision, failed(verdict)) == ("reject", ["slices"])
    (reason,) = [r for r in verdict.reasons if r.check == "slices"]
    assert reason.measured == ["carrier=C0"]
    assert "1 of 2 slices" in reason.message


def test_an_uncertain_slice_passes() -> None:
    assert judged(slices=slices(span(-0.2, -0.1, -0.05), Interval(estimate=-0.3))).decision == "promote"


def group(difference: Interval, groups: int = 2) -> list[measured.Fairness]:
    found = [measured.Group(value=f"G{k}", rows=900, rates={"true_positive_rate": 0.5}) for k in range(groups)]
    return [
        measured.Fairness(
            column="origin", measure="equalized odds difference", difference=difference, groups=found, left_out=0
        )
    ]


@pytest.mark.parametrize(
    ("difference", "groups", "decision"),
    [
        (span(0.0, 0.1, 0.2), 2, "promote"),
        (span(0.05, 0.15, 0.2), 2, "hold"),
        (span(0.12, 0.15, 0.2), 2, "reject"),
        (Interval(estimate=None), 1, "hold"),
    ],
)
def test_fairness_gates_only_where_a_limit_is_set(difference: Interval, groups: int, decision: str) -> None:
    limited = settings(fairness=Fairness(groups=["origin"], max_difference=0.1))
    assert judged(limited, fairness=group(difference, groups)).decision == decision
    assert judged(fairness=group(difference, groups)).decision == "promote"


def test_leakage_gates_only_where_a_limit_is_set() -> None:
    gap = measured.Leakage(random_split=0.78, time_split=0.69, gap=0.09, rows=16_000)
    limited = settings(leakage=Leakage(max_gap=0.05))
    assert judged(leakage=gap).decision == "promote"
    assert judged(limited, leakage=gap).decision == "reject"
    assert judged(settings(leakage=Leakage(max_gap=0.1)), leakage=gap).decision == "promote"
    assert judged(limited, leakage=None).decision == "hold"


def test_rejection_outweighs_doubt() -> None:
    assert judged(lift=span(-0.03, -0.02, -0.01), gain=Interval(estimate=None)).decision == "reject"


def test_the_sentence_names_the_first_failure_and_counts_the_rest() -> None:
    changes: dict[str, Any] = {"lift": span(-0.03, -0.02, -0.01), "gain": span(-0.3, -0.2, -0.1)}
    text = sentence(judged(**changes), figures(**changes), version=8)
    assert text == (
        "Reject version 8: not better than the logistic regression: improvement of AUC over the logistic "
        "regression: −0.020 [−0.030, −0.010] (and 1 more)."
    )


def test_the_champions_own_model_is_held_whatever_the_margin() -> None:
    """Promoting it would change nothing but the version."""
    same = measured.Champion(version=5, model="d" * 64, added_inputs=[], removed_inputs=[])
    verdict = judged(champion=same, gain=span(0.0, 0.0, 0.0))
    assert verdict.decision == "hold"
    assert failed(verdict) == ["novelty"]
    assert sentence(verdict, figures(champion=same), version=8).startswith("Hold version 8: nothing new")
