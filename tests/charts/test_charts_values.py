"""What charts accept: a schema for every value, no unknown ones, no image without a digest; READMEs that say so."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each schema below a schema, with where it is."""
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            for name, sub in value.items() if key in {"properties", "$defs"} else [("", value)]:
                yield from nodes(sub, f"{path}/{key}/{name}" if name else f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from nodes(value, f"{path}/{index}")


def read_schema(chart: Path) -> Any:
    return json.loads((chart / "values.schema.json").read_text())


def test_the_schema_is_of_draft_2020_12_and_closed(chart: Path) -> None:
    schema = read_schema(chart)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    for path, node in nodes(schema):
        if "properties" in node and path.rpartition("/")[2] not in {"if", "then", "else"}:
            assert node.get("additionalProperties") is False, f"{path or '/'} accepts unknown values"
        elif node.get("type") == "object" and "$ref" not in node:
            closed = isinstance(node.get("additionalProperties"), dict) or node.get("additionalProperties") is False
            # An object that a condition of its parent describes has its schema there.
            described = any(p.endswith(f"then/properties/{path.rpartition('/')[2]}") for p, _ in nodes(schema))
            assert closed or described, f"{path} accepts anything"


def test_value_sets_are_there(chart: Path) -> None:
    assert list((chart / "ci").glob("*.yaml")), "charts are tested with the value sets in ci/"


def test_every_default_is_declared(chart: Path) -> None:
    """And the reverse is README's: each declared value has its words."""
    schema = read_schema(chart)

    def walk(values: Any, node: Any, path: str) -> None:
        while "$ref" in node:
            node = _at(schema, node["$ref"])
        for key, value in values.items():
            declared = node.get("properties", {}).get(key)
            assert declared is not None or isinstance(node.get("additionalProperties"), dict), f"{path}.{key}"
            if isinstance(value, dict) and declared is not None:
                walk(value, declared, f"{path}.{key}")

    walk(yaml.safe_load((chart / "values.yaml").read_text()) or {}, schema, "")


def _at(schema: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        schema = schema[part]
    return schema


def objects_in(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each object in values."""
    if isinstance(values, dict):
        yield path
        for key, value in values.items():
            yield from objects_in(value, (*path, key))
    if isinstance(values, list):
        for index, value in enumerate(values):
            yield from objects_in(value, (*path, index))


def test_an_unknown_value_is_refused_everywhere(rendered: Any, helm: ModuleType) -> None:
    """By Helm itself at the top, by the same schema at every depth."""
    chart = Path(__file__).parents[2] / "charts" / rendered.chart
    schema = read_schema(chart)
    validator = jsonschema.Draft202012Validator(schema)
    values: Any = yaml.safe_load((chart / "values.yaml").read_text()) or {}
    for file in rendered.values:
        values = _merged(values, yaml.safe_load(file.read_text()) or {})
    assert not list(validator.iter_errors(values))
    with pytest.raises(helm.RenderError, match="unheardOf"):
        helm.render(chart, {**values, "unheardOf": 1}, name="flights", namespace="ml-flights")
    for path in objects_in(values):
        changed = copy.deepcopy(values)
        place = changed
        for step in path:
            place = place[step]
        place["unheardOf"] = {"a": 1}
        assert list(validator.iter_errors(changed)), f"{path} accepts an unknown value"


def test_an_image_needs_a_digest(rendered: Any) -> None:
    """Every object with `repository` and `digest` in the values: without the digest, or with a tag, it is refused."""
    chart = Path(__file__).parents[2] / "charts" / rendered.chart
    validator = jsonschema.Draft202012Validator(read_schema(chart))
    values: Any = {}
    for file in rendered.values:
        values = _merged(values, yaml.safe_load(file.read_text()) or {})
    for path in objects_in(values):
        place = values
        for step in path:
            place = place[step]
        if "repository" not in place:
            continue
        for wrong in (None, "latest", "sha256:abc", place["digest"].upper(), place["digest"].removeprefix("sha256:")):
            changed = copy.deepcopy(values)
            image = changed
            for step in path:
                image = image[step]
            image.pop("digest") if wrong is None else image.update(digest=wrong)
            assert list(validator.iter_errors(changed)), f"{path} accepts the digest {wrong}"
        for more in ({"tag": "1.0"}, {"repository": f"{place['repository']}:1.0"}):
            changed = copy.deepcopy(values)
            image = changed
            for step in path:
                image = image[step]
            image.update(more)
            assert list(validator.iter_errors(changed)), f"{path} accepts {more}"


def _merged(one: Any, other: Any) -> Any:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def test_helm_lint_has_no_objection(rendered: Any, helm: ModuleType) -> None:
    values: Any = {}
    for file in rendered.values:
        values = _merged(values, yaml.safe_load(file.read_text()) or {})
    assert helm.lint(Path(__file__).parents[2] / "charts" / rendered.chart, values) == []


def test_readmes_are_of_the_schemas() -> None:
    script = Path(__file__).parents[2] / "charts/render_readmes.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}next step: make charts"
