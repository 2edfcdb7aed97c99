"""Run the expectations of one table with Great Expectations on a pandas batch.

`ValidationDefinition` and `Checkpoint` of 1.24 raise on numpy results; `batch.validate` does not.
"""

from typing import Any

import pyarrow as pa

from components.validate.findings import Finding, show, show_percent
from components.validate.suite import Expectation, nearest
from components.validate.wording import describe


def run_expectations(
    table: str, rows: pa.Table, expectations: list[Expectation], *, keys: list[str], examples: int
) -> list[Finding]:
    """Check expectations against the rows of a table; one finding each, in the given order.

    An expectation that names a missing column or raises is a critical failure with its message.
    """
    findings: dict[int, Finding] = {}
    runnable = {}
    for position, expectation in enumerate(expectations):
        missing = expectation.missing(rows.column_names)
        if missing:
            findings[position] = _missing_column(table, expectation, missing[0], rows.column_names)
        elif rows.num_rows == 0:
            findings[position] = _broken(table, expectation, "there are no rows to check")
        else:
            runnable[position] = expectation
    for position, outcome in _validate(rows, runnable).items():
        findings[position] = _judge(table, rows, expectations[position], outcome, keys, examples)
    return [findings[position] for position in range(len(expectations))]


def _validate(rows: pa.Table, expectations: dict[int, Expectation]) -> dict[int, dict[str, Any]]:
    """Return Great Expectations' result per position; `error` holds what it raised."""
    if not expectations:
        return {}
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    used = set().union(*(e.columns(rows.column_names) for e in expectations.values()))
    frame = rows.select([c for c in rows.column_names if c in used]).to_pandas()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    # Results of expectations that raised come first, so each carries its own position.
    suite = gx.ExpectationSuite(
        name="suite",
        expectations=[
            {"type": e.type, "kwargs": e.kwargs, "severity": e.severity, "meta": {"position": position}}
            for position, e in expectations.items()
        ],
    )
    results = batch.validate(suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": 20})
    outcomes = {
        result.expectation_config.meta["position"]: {
            "success": bool(result.success),
            "result": result.result,
            "error": _raised(result.exception_info),
        }
        for result in results.results
    }
    return {position: outcomes.get(position, {"error": "no result was returned"}) for position in expectations}


def _raised(info: Any) -> str:
    """Return the messages in an `exception_info`, which is flat or nested by metric; empty when nothing was raised."""
    if not info:
        return ""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [e.get("exception_message") or "unknown error" for e in entries if e.get("raised_exception")]
    return "; ".join(dict.fromkeys(messages))


def _judge(
    table: str, rows: pa.Table, expectation: Expectation, outcome: dict[str, Any], keys: list[str], examples: int
) -> Finding:
    if outcome["error"]:
        return _broken(table, expectation, outcome["error"])
    result = outcome["result"]
    percent = result.get("unexpected_percent_total", result.get("unexpected_percent"))
    positions = [] if outcome["success"] else (result.get("partial_unexpected_index_list") or [])[:examples]
    if percent is None:
        observed = show(_plain(result.get("observed_value")))
    else:
        percent = float(percent)
        observed = (
            f"{result['unexpected_count']:,} of {result['element_count']:,} rows failing ({show_percent(percent)})"
        )
    expected = describe(expectation)
    return Finding(
        table=table,
        column=expectation.column,
        check=expectation.type,
        severity=expectation.severity,
        passed=outcome["success"],
        message=f"{_subject(table, expectation)}: expected {expected}, found {observed}",
        expected=expected,
        observed=observed,
        failing_percent=percent,
        examples=quote_rows(rows, positions, [*keys, *sorted(expectation.columns(rows.column_names))]),
        notes=str(expectation.meta.get("notes", "")),
    )


def _missing_column(table: str, expectation: Expectation, column: str, present: list[str]) -> Finding:
    near = nearest(column, present)
    hint = f", the nearest is {near}" if near else ""
    return _broken(table, expectation, f"the table has no column {column}{hint}")


def _broken(table: str, expectation: Expectation, problem: str) -> Finding:
    """Return a critical failure for an expectation that could not be checked, whatever its own severity."""
    return Finding(
        table=table,
        column=expectation.column,
        check=expectation.type,
        severity="critical",
        passed=False,
        message=f"{_subject(table, expectation)}: {expectation.type} could not be checked: {problem}",
        expected=describe(expectation),
        observed=problem,
        notes=str(expectation.meta.get("notes", "")),
    )


def _subject(table: str, expectation: Expectation) -> str:
    return f"{table}.{expectation.column}" if expectation.column else table


def quote_rows(rows: pa.Table, positions: list[int], columns: list[str]) -> list[dict[str, str]]:
    """Return rows by position as text: the given columns first, then both timestamps."""
    ordered = dict.fromkeys([*columns, "event_timestamp", "label_timestamp"])
    names = [name for name in ordered if name in rows.column_names]
    if not positions:
        return []
    quoted = rows.select(names).take(pa.array(positions, pa.int64())).to_pylist()
    return [{name: show(value) for name, value in row.items()} for row in quoted]


def _plain(value: Any) -> Any:
    """Unwrap numpy scalars, also inside lists and mappings."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value
