"""Options that several commands share."""

from typing import Any

import click

from components.core.errors import ConfigError

use_case_option = click.option("--use-case", "use_case", required=True, help="Folder below feature_repo.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def parse_overrides(pairs: tuple[str, ...], defaults: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Turn `section.key=value` pairs into whole parameters; values are YAML.

    Raises ConfigError for a pair without `=` and for an unknown section.
    """
    import yaml

    sections: dict[str, Any] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        section, _, rest = path.partition(".")
        if not separator or section not in defaults or not rest:
            raise ConfigError(
                "not a parameter", measured=pair, allowed="SECTION.KEY=VALUE with SECTION of " + ", ".join(defaults)
            )
        target = sections.setdefault(section, _copy(defaults[section]))
        *parents, leaf = rest.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = yaml.safe_load(text)
    return sections


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value
