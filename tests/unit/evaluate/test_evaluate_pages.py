"""Report and model card: complete, self-contained, safe and readable without seeing."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from components.core.sections import Evaluate, Fairness
from components.evaluate.card import render_card
from components.evaluate.judging import Judgement, judge
from components.evaluate.report import render_report

CONFIG = Evaluate(
    margin=0.01, slices=["origin"], min_slice_rows=200, fairness=Fairness(groups=["origin"]), bootstrap_samples=100
)
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collect tags, attributes and text, and check that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


@pytest.fixture
def judged(
    case: SimpleNamespace, bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> Judgement:
    champion = bundle("champion", {**case.GOOD, "noise": 0.5}, -2.4)
    return judge(case.TASKS["classification"], CONFIG, bundle(), training_set(rows), champion, 1)


def test_the_report_opens_with_the_decision_and_shows_every_reason(judged: Judgement, case: SimpleNamespace) -> None:
    page = parse(render_report("flights", case.TASKS["classification"], CONFIG, judged))
    text = [t.strip() for t in page.text if t.strip()]
    headline = next(i for i, t in enumerate(text) if t.startswith("Promote version 2: AUC"))
    assert headline < text.index("Reasons")
    assert all(r.message in text for r in judged.verdict.reasons)
    assert {"How good is it?", "Curves", "Slices", "Groups", "What it looks at", "Where it comes from"} <= set(text)
    assert judged.card.model in text


def test_the_report_loads_nothing_and_runs_nothing(judged: Judgement, case: SimpleNamespace) -> None:
    page = parse(render_report("flights", case.TASKS["classification"], CONFIG, judged))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert not set(attributes) & {"src", "href", "onload", "onclick"}
        reference = attributes.get("xlink:href")
        assert reference is None or reference.startswith("#")
    style = "".join(page.text)
    assert "@import" not in style
    assert "url(http" not in style


def test_every_plot_has_a_text_alternative_and_own_ids(judged: Judgement, case: SimpleNamespace) -> None:
    page = parse(render_report("flights", case.TASKS["classification"], CONFIG, judged))
    plots = [attributes for name, attributes in page.tags if name == "svg"]
    assert len(plots) >= 8
    assert all(p.get("role") == "img" and p.get("aria-label") for p in plots)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    references = {a["xlink:href"][1:] for _, a in page.tags if a.get("xlink:href")}  # type: ignore[index]
    assert references <= set(ids)


def test_names_from_data_cannot_become_markup(
    case: SimpleNamespace, bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    hostile = "<script>alert('x')</script>"
    names = pa.array([hostile if v == "JFK" else v for v in rows.column("origin").to_pylist()])
    poisoned = rows.set_column(rows.column_names.index("origin"), "origin", names)
    judgement = judge(case.TASKS["classification"], CONFIG, bundle(), training_set(poisoned))
    page = parse(render_report(hostile, case.TASKS["classification"], CONFIG, judgement))
    assert "script" not in {name for name, _ in page.tags}
    assert hostile in "".join(page.text)


def test_the_model_card_says_what_it_is_for_how_good_and_where_from(judged: Judgement, case: SimpleNamespace) -> None:
    card = render_card("flights", case.TASKS["classification"], CONFIG, judged)
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# flights, version 2",
        "## Intended use",
        "## Data",
        "## Metrics",
        "## Slices",
        "## What it looks at",
        "## Limits",
        "## Origin",
    ]
    for digest in (judged.card.model, judged.card.training_set, judged.card.snapshot, judged.card.registry):
        assert f"`{digest}`" in card
    assert "| AUC | 0." in card
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    # KFP's page makes what is between two underscores italic, in the middle of words too.
    prose = "".join(card.split("`")[::2])
    assert "max\\_depth 5" in prose
    assert not re.search(r"(?<!\\)_", prose)


def test_a_broken_model_still_gets_both_pages(
    case: SimpleNamespace, bundle: Callable[..., Path], training_set: Callable[..., Path], rows: pa.Table
) -> None:
    broken = bundle(weights={"hour": float("nan")})
    judgement = judge(case.TASKS["classification"], CONFIG, broken, training_set(rows))
    page = parse(render_report("flights", case.TASKS["classification"], CONFIG, judgement))
    assert any(t.startswith("Reject version 2: the challenger predicts values that are not finite") for t in page.text)
    card = render_card("flights", case.TASKS["classification"], CONFIG, judgement)
    assert "None: the challenger predicts values that are not finite" in card
