"""Expectations in the words of whoever reads the report."""

from components.validate.findings import show
from components.validate.suite import Expectation

SPOKEN = {"column", "column_A", "column_B", "min_value", "max_value", "mostly", "value_set", "condition_parser"}
"""Arguments that a description words itself."""


def describe(expectation: Expectation) -> str:
    """Say in words what an expectation wants."""
    kwargs = expectation.kwargs
    words = expectation.type.removeprefix("expect_").removeprefix("column_").removeprefix("table_").replace("_", " ")
    what = words.replace(" to not be ", " not ").replace(" to be ", " ").removeprefix("values ")
    if "column_A" in kwargs and what.startswith("pair values a "):
        what = f"{kwargs['column_A']} {what.removeprefix('pair values a ').removesuffix(' b')} {kwargs['column_B']}"
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        what = f"{what} {show(low)} and {show(high)}"
    elif low is not None or high is not None:
        bound = f"at least {show(low)}" if high is None else f"at most {show(high)}"
        what = f"{what.removesuffix(' between')} {bound}"
    if "value_set" in kwargs:
        what = f"{what} {', '.join(show(value) for value in kwargs['value_set'])}"
    others = [f"{name} {show(value)}" for name, value in kwargs.items() if name not in SPOKEN]
    if others:
        what = f"{what} ({', '.join(others)})"
    mostly = kwargs.get("mostly", 1)
    return what if mostly == 1 else f"{what}, in at least {show(100.0 * mostly)} % of rows"
