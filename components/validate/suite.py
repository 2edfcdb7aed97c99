"""The expectation suite of a use case, checked before any data is read."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import ConfigError

Severity = Literal["critical", "warning", "info"]
LONGEST_LIST = 20

# These need a database behind the batch; on a data frame they could only ever fail.
SQL_ONLY = {
    "unexpected_rows_expectation",
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
}
# These look at the set of columns, so they must see all of them.
WHOLE_SCHEMA = {
    "expect_table_column_count_to_be_between",
    "expect_table_column_count_to_equal",
    "expect_table_columns_to_match_ordered_list",
    "expect_table_columns_to_match_set",
}


class Expectation(BaseModel):
    """One configured expectation on one table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    kwargs: dict[str, Any] = {}
    severity: Severity = "critical"
    meta: dict[str, Any] = {}

    @property
    def column(self) -> str:
        """The column it is about; several are joined by a comma, none gives the empty text."""
        return ", ".join(self._named_columns())

    def columns(self, present: Iterable[str]) -> set[str]:
        """Return the columns of a table that this expectation reads."""
        if self.type in WHOLE_SCHEMA:
            return set(present)
        # A condition may come as text or as a tree; a name that merely occurs in it only costs one column more.
        condition = str(self.kwargs.get("row_condition") or "")
        return {c for c in present if c in self._named_columns() or c in condition}

    def missing(self, present: Iterable[str]) -> list[str]:
        """Return the columns that it reads and the table does not have."""
        if self.type == "expect_column_to_exist":
            return []
        return [c for c in self._named_columns() if c not in set(present)]

    def _named_columns(self) -> list[str]:
        single = [self.kwargs.get(name) for name in ("column", "column_A", "column_B")]
        return [str(name) for name in [*single, *(self.kwargs.get("column_list") or [])] if name]


def parse_suite(suite: Mapping[str, Any], tables: Iterable[str]) -> dict[str, list[Expectation]]:
    """Turn the JSON suite into expectations per table.

    Whole floats become ints first, because a pipeline parameter returns every number as a float.
    Raises ConfigError for an unknown table, expectation type, key or kwarg, naming the nearest valid one.
    """
    known = sorted(tables)
    parsed = {}
    for table, entries in suite.items():
        if table not in known:
            raise _unknown("table", table, known, where="the suite")
        if not isinstance(entries, list):
            raise ConfigError(
                f"the suite of {table} must be a list of expectations", measured=type(entries).__name__, allowed="list"
            )
        parsed[table] = [_parse_expectation(table, position, entry) for position, entry in enumerate(entries)]
    return parsed


def _parse_expectation(table: str, position: int, entry: Any) -> Expectation:
    where = f"{table}[{position}]"
    try:
        expectation = Expectation.model_validate(whole_numbers(entry))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            if problem["type"] == "extra_forbidden":
                raise _unknown("key", str(problem["loc"][-1]), list(Expectation.model_fields), where=where) from None
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}.{path}: {first['msg']}", measured=repr(first["input"])[:80]) from None
    _require_valid(expectation, where)
    return expectation


def _require_valid(expectation: Expectation, where: str) -> None:
    """Let Great Expectations build the expectation, and translate its complaints."""
    from great_expectations.compatibility.pydantic import ValidationError as InvalidKwargs
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    available = sorted(set(list_registered_expectation_implementations()) - SQL_ONLY)
    if expectation.type not in available:
        raise _unknown("expectation type", expectation.type, available, where=where)
    implementation = get_expectation_impl(expectation.type)
    allowed = sorted(
        set(implementation.__fields__) - {"id", "meta", "notes", "rendered_content", "batch_id", "severity"}
    )
    for name in expectation.kwargs:
        if name not in allowed:
            raise _unknown("kwarg", name, allowed, where=f"{where} {expectation.type}")
    try:
        implementation(**expectation.kwargs)
    except (InvalidKwargs, ValueError, TypeError) as error:
        problems = error.errors() if isinstance(error, InvalidKwargs) else [{"loc": ("kwargs",), "msg": str(error)}]
        text = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in problems)
        raise ConfigError(
            f"{where} {expectation.type}: {text}",
            measured=str(expectation.kwargs)[:200],
            allowed=", ".join(allowed),
        ) from None


def whole_numbers(value: Any) -> Any:
    """Replace floats without a fraction by ints, at every depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole_numbers(inner) for inner in value]
    return value


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name closest to a misspelt one, or the empty text."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.4)), "")


def _unknown(kind: str, name: str, valid: list[str], *, where: str) -> ConfigError:
    near = nearest(name, valid)
    return ConfigError(
        f"{where}: unknown {kind} {name!r}" + (f", did you mean {near!r}?" if near else ""),
        measured=name,
        allowed=", ".join(valid) if len(valid) <= LONGEST_LIST else f"one of {len(valid)} names",
        next_step="correct expectations.json of the use case",
    )
