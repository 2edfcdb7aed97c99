from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa

from components.core.sections import Expectations
from components.core.tables import Snapshot
from components.validate.findings import Finding, show, show_percent
from components.validate.judge import decide
from components.validate.page import render

Write = Callable[..., tuple[Path, Path, Snapshot]]
VOID = {"meta"}


class Page(HTMLParser):
    """Collects tags, text and attributes, and insists on balanced tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def finding(**changes: object) -> Finding:
    base = Finding(
        table="trips", column="km", check="c", severity="critical", passed=True, message="m", expected="e", observed="o"
    )
    return base.model_copy(update=changes)


def page(snapshot: Snapshot, *findings: Finding) -> Page:
    html = render(snapshot, decide(snapshot, list(findings)), list(findings))
    assert not any(word in html for word in ("http:", "https:", "url(", "@import"))
    return Page(html)


def test_the_decision_comes_first(snapshot_of: Write, trips: pa.Table) -> None:
    _, _, snapshot = snapshot_of(trips=trips)
    good = page(snapshot, finding())
    warned = page(snapshot, finding(), finding(passed=False, severity="warning"))
    bad = page(snapshot, finding(passed=False), finding(passed=False, severity="info"), finding())
    headlines = [
        p.texts[p.texts.index(next(t for t in p.texts if t.startswith(("Passed", "Rejected"))))]
        for p in (good, warned, bad)
    ]
    assert headlines == [
        "Passed: every check holds.",
        "Passed with 1 warning: nothing critical was found.",
        "Rejected: 1 critical check failed in trips.",
    ]
    assert "Why it was rejected" in bad.text
    assert "Warnings" in bad.text
    assert "Why it was rejected" not in warned.text
    assert snapshot.digest in good.text


def test_nothing_from_the_data_becomes_markup(snapshot_of: Write, trips: pa.Table) -> None:
    _, _, snapshot = snapshot_of(trips=trips)
    evil = '"><script src=x onerror=alert(1)>&'
    shown = page(
        snapshot,
        finding(
            passed=False, table=evil, column=evil, check=evil, expected=evil, observed=evil, notes=evil,
            examples=[{evil: evil}],
        ),
        finding(table=evil, column=evil, expected=evil),
    )  # fmt: skip
    assert "script" not in shown.tags
    assert shown.attributes <= {"lang", "charset", "name", "content", "class"}
    assert evil in shown.text


def test_passed_checks_are_folded_away(snapshot_of: Write, trips: pa.Table) -> None:
    _, _, snapshot = snapshot_of(trips=trips)
    shown = page(snapshot, finding(), finding(column="late"))
    assert shown.tags.count("details") == 1
    assert "2 checks passed" in shown.text


def test_long_values_are_shortened() -> None:
    assert show("x" * 500) == "x" * 119 + "…"
    assert [show(v) for v in (None, float("nan"), 1.0, 3, 0.1 + 0.2)] == ["null", "null", "1", "3", "0.3"]


def test_a_few_rows_never_read_as_none_nor_almost_all_as_all() -> None:
    shares = [0.0, 0.001, 0.02, 50.0, 99.999, 100.0]
    assert [show_percent(s) for s in shares] == ["0.00 %", "< 0.01 %", "0.02 %", "50.00 %", "> 99.99 %", "100.00 %"]


def test_examples_are_bounded_by_the_section() -> None:
    assert Expectations.model_validate({"examples": 5.0}).examples == 5
