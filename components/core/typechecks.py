"""Importing Feast without instrumenting it.

Feast decorates 19 classes with typeguard's `typechecked`, which parses and compiles each of their 242 functions again
at import: half of the 6 CPU-seconds that Feast costs, in every step and in every server. The checks catch wrong
arguments in `features.py`, so `driftline features apply` keeps them; what reads applied definitions needs none.
"""

from typing import Any


def skip_typechecks() -> None:
    """Let typeguard's decorator return what it decorates, in whatever this process imports from now on."""
    import typeguard

    def unchanged(target: Any = None, **_: Any) -> Any:
        return target if target is not None else lambda decorated: decorated

    typeguard.typechecked = unchanged
