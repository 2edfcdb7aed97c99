"""Arguments of a run on the cluster, checked before anything is sent."""

from typing import Any

from components.core.errors import ConfigError
from components.core.settings import Settings
from pipelines.catalog import override, read_case


def run_arguments(
    settings: Settings,
    use_case: str,
    pipeline: str,
    *,
    params: tuple[str, ...],
    as_of: str | None,
    first: str | None,
    last: str | None,
) -> dict[str, Any]:
    """Return the pipeline's parameters that differ from its defaults; whole sections, with their overridden keys.

    Raises ConfigError for an unknown section or key, a value that its section refuses, or a period of a pipeline that
    has none.
    """
    arguments = override(read_case(settings.feature_repo, use_case), params, as_of, pipeline=pipeline)
    if pipeline != "scoring":
        if first is not None or last is not None:
            raise ConfigError(
                f"{pipeline} has no period", measured=f"--from {first}, --to {last}", allowed="--as-of, which it has"
            )
        return arguments
    from components.core.clock import parse_instant
    from components.features.period import whole_days

    instant = as_of if as_of is not None else last or ""
    whole_days(first or "", last or "", as_of=parse_instant(instant, what="--as-of" if as_of is not None else "--to"))
    return arguments | {"as_of": instant, "first": first or "", "last": last or ""}
