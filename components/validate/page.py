"""The validation page: one self-contained HTML file, decision first, for whoever is on call at night."""

from collections.abc import Iterable
from html import escape

from components.core.tables import Snapshot
from components.core.verdict import Verdict
from components.validate.findings import Finding, shorten, show, show_percent

LONGEST_TEXT = 400

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #dfe3e8; --paper: #fff; --tint: #f6f7f9;
  --bad: #b3261e; --bad-tint: #fdf0ef; --warn: #8a5a00; --warn-tint: #fdf6e7; --good: #1c6b3c; --good-tint: #edf7f0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa4b0; --line: #333a43; --paper: #15181c;
  --tint: #1d2127; --bad: #ff8a80; --bad-tint: #2c1a1a; --warn: #f2c063; --warn-tint: #2a2315; --good: #7fd6a0;
  --good-tint: #16261c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1060px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; } h2 { font-size: 17px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 0; } p { margin: 4px 0; } .soft { color: var(--soft); }
code, .num { font-variant-numeric: tabular-nums; } code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.banner { border-left: 6px solid; border-radius: 6px; padding: 18px 20px; }
.finding { border-left: 4px solid; border-radius: 6px; padding: 12px 16px; margin: 0 0 12px; }
.bad { border-color: var(--bad); background: var(--bad-tint); } .bad h1, .bad h3 { color: var(--bad); }
.good { border-color: var(--good); background: var(--good-tint); } .good h1 { color: var(--good); }
.warn { border-color: var(--warn); background: var(--warn-tint); } .warn h3 { color: var(--warn); }
.scroll { overflow-x: auto; margin-top: 10px; } table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } td.num, th.num { text-align: right; } td.wide { white-space: normal; }
td.hit { font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } details { margin-top: 36px; }
summary { cursor: pointer; font-weight: 600; font-size: 17px; }
"""


def render(snapshot: Snapshot, verdict: Verdict, findings: list[Finding]) -> str:
    """Return the page as HTML; it loads nothing from anywhere."""
    critical = [f for f in findings if not f.passed and f.severity == "critical"]
    milder = [f for f in findings if not f.passed and f.severity != "critical"]
    passed = [f for f in findings if f.passed]
    parts = [
        _banner(snapshot, verdict, critical, milder, passed),
        _section("Why it was rejected", (_finding(f, "bad") for f in critical)),
        _section("Warnings", (_finding(f, "warn") for f in milder)),
        _tables(snapshot, findings),
        _passed(passed),
    ]
    title = f"{escape(snapshot.use_case)}: data {escape(verdict.decision)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>\n{''.join(parts)}</body></html>\n"
    )


def headline(verdict: Verdict, critical: list[Finding], milder: list[Finding]) -> str:
    """Say the decision in one sentence."""
    if verdict.decision == "reject":
        tables = sorted({f.table for f in critical})
        return f"Rejected: {_count(len(critical), 'critical check')} failed in {_list(tables)}."
    if milder:
        return f"Passed with {_count(len(milder), 'warning')}: nothing critical was found."
    return "Passed: every check holds."


def _banner(
    snapshot: Snapshot, verdict: Verdict, critical: list[Finding], milder: list[Finding], passed: list[Finding]
) -> str:
    tone = "bad" if critical else "good"
    action = (
        "Training stops here and the serving model stays as it is. Repair the data upstream, then start the run again."
        if critical
        else "The run goes on with exactly this snapshot."
    )
    facts = {
        "Use case": escape(snapshot.use_case),
        "As of": show(snapshot.as_of),
        "Checks": f"{len(critical)} critical failed, {len(milder)} warnings, {len(passed)} passed",
        "Snapshot": f"<code>{escape(verdict.subject)}</code>",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    sentence = escape(headline(verdict, critical, milder))
    return f'<div class="banner {tone}"><h1>{sentence}</h1><p>{action}</p><dl>{rows}</dl></div>\n'


def _section(title: str, blocks: Iterable[str]) -> str:
    body = "".join(blocks)
    return f"<h2>{title}</h2>\n{body}" if body else ""


def _finding(finding: Finding, tone: str) -> str:
    subject = f"{finding.table}.{finding.column}" if finding.column else finding.table
    facts = {"Expected": finding.expected, "Found": finding.observed, "Why": finding.notes, "Check": finding.check}
    rows = "".join(
        f"<dt>{name}</dt><dd>{escape(shorten(text, LONGEST_TEXT))}</dd>" for name, text in facts.items() if text
    )
    head = f"<h3>{escape(shorten(subject, LONGEST_TEXT))}</h3>"
    return f'<div class="finding {tone}">{head}<dl>{rows}</dl>{_examples(finding)}</div>\n'


def _examples(finding: Finding) -> str:
    if not finding.examples:
        return ""
    hit = set(finding.column.split(", "))
    names = list(finding.examples[0])
    head = "".join(f"<th>{escape(show(name))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td{_class(n in hit)}>{escape(row.get(n, ''))}</td>" for n in names) + "</tr>"
        for row in finding.examples
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _class(hit: bool) -> str:
    return ' class="hit"' if hit else ""


def _tables(snapshot: Snapshot, findings: list[Finding]) -> str:
    """One line per table: size, months, instants and the digest of its newest month."""
    lines = []
    for name, table in sorted(snapshot.tables.items()):
        failed = sum(not f.passed for f in findings if f.table == name)
        first, last = (table.partitions[0], table.partitions[-1]) if table.partitions else (None, None)
        cells = [
            f"<td>{escape(name)}</td>",
            f'<td class="num">{table.rows:,}</td>',
            f'<td class="num">{len(table.partitions)}</td>',
            f"<td>{show(first.first) if first else 'none'}</td>",
            f"<td>{show(last.last) if last else 'none'}</td>",
            f"<td><code>{escape(last.sha256[:12]) if last else ''}</code></td>",
            f'<td class="num">{failed or "–"}</td>',
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = (
        '<th>Table</th><th class="num">Rows</th><th class="num">Months</th><th>First</th><th>Last</th>'
        '<th>Newest file</th><th class="num">Failed checks</th>'
    )
    return f'<h2>Tables</h2>\n<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>\n'


def _passed(findings: list[Finding]) -> str:
    rows = "".join(
        f"<tr><td>{escape(show('.'.join(p for p in (f.table, f.column) if p)))}</td>"
        f'<td class="wide">{escape(shorten(f.expected, LONGEST_TEXT))}</td>'
        f'<td class="num">{"" if f.failing_percent is None else show_percent(f.failing_percent)}</td></tr>'
        for f in findings
    )
    head = '<th>Where</th><th>Expected</th><th class="num">Failing rows</th>'
    return (
        f"<details><summary>{_count(len(findings), 'check')} passed</summary>"
        f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div></details>\n'
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
