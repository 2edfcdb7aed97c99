"""Write each chart's README.md from its Chart.yaml, values.schema.json and values.yaml; `--check` only compares.

Exit code 4: a README differs, or a value has no description.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parent
HELMS_OWN = {"global", "driftline-lib"}
DIFFERS = 4


def readme(chart: Path) -> str:
    """Return the README of a chart. Raises ValueError for a value without a description."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text()) or {}
    sets = sorted(path.stem for path in (chart / "ci").glob("*.yaml"))
    lines = [
        f"# {about['name']}",
        "",
        f"{about['description'].rstrip('.')}.",
        "",
        f"Version {about['version']}, Kubernetes {about['kubeVersion'].removesuffix('-0')}. Examples: "
        f"{', '.join(f'[{name}](ci/{name}.yaml)' for name in sets)}. [How our charts are made](../../docs/charts.md)",
        "",
        "<!-- Generated from values.schema.json by `make charts`. -->",
        "",
        "| value | default | |",
        "|---|---|---|",
    ]
    lines += [f"| `{path}` | {_default(defaults, path)} | {text} |" for path, text in _values(schema, schema, "")]
    return "\n".join(lines) + "\n"


def _values(schema: Any, root: Any, above: str) -> Iterator[tuple[str, str]]:
    """Yield path and description of every value, parents before children."""
    for name, declared in schema.get("properties", {}).items():
        if not above and name in HELMS_OWN:
            continue
        path = f"{above}.{name}" if above else name
        node = _resolve(declared, root)
        if "description" not in node:
            raise ValueError(f"{path} has no description in values.schema.json")
        choices = f" One of {', '.join(f'`{choice}`' for choice in node['enum'])}." if "enum" in node else ""
        yield path, (node["description"] + choices).replace("|", "\\|")
        yield from _values(node, root, path)
        items = node.get("items", {})
        yield from _values(_resolve(items.get("allOf", [items])[0], root), root, f"{path}[]")


def _resolve(node: Any, root: Any) -> Any:
    """Return a node with what its `$ref` says; its own words win."""
    if "$ref" not in node:
        return node
    target = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return _resolve(target, root) | {key: value for key, value in node.items() if key != "$ref"}


def _default(defaults: Any, path: str) -> str:
    value = defaults
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    if isinstance(value, dict) and value:
        return ""
    return f"`{json.dumps(value)}`".replace("|", "\\|")


def main() -> int:
    """Write or compare the READMEs of all charts that have values."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    differing, broken = [], False
    for schema in sorted(CHARTS.glob("*/values.schema.json")):
        path = schema.with_name("README.md")
        try:
            text = readme(schema.parent)
        except ValueError as error:
            sys.stderr.write(f"{schema.parent.name}: {error}\n")
            broken = True
            continue
        if not path.is_file() or path.read_text() != text:
            differing.append(path)
            if not check:
                path.write_text(text)
    for path in differing:
        sys.stderr.write(f"{path.relative_to(CHARTS.parent)} {'differs' if check else 'written'}\n")
    return DIFFERS if broken or (check and differing) else 0


if __name__ == "__main__":
    sys.exit(main())
