"""The release of a use case in an environment: `release.yaml`, which is also a Helm values file of the chart.

    infra/usecases/<use_case>/envs/<environment>/release.yaml

Written by machines only. It holds no clock and no host name: an equal promotion gives equal bytes.
"""

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from components.core.errors import ConfigError
from components.core.sections import Name
from components.core.usecase import explain

Environment = Literal["local", "staging", "prod"]
ENVIRONMENTS: tuple[str, ...] = get_args(Environment)
FILE = "release.yaml"
HEADER = "# Written by Driftline; do not edit. Roll back with `git revert`.\n"
MAX_CHARACTERS = 4_000

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    # Strict: a version in quotes is a text for Helm's schema too.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        protected_namespaces=(),
    )


class ReleasedBento(_Part):
    """The archive that a serving pod fetches."""

    tag: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*$", max_length=190)]
    """Name and version, as BentoML's metrics show them."""
    digest: Digest
    """SHA-256 of the archive."""
    uri: Annotated[str, Field(pattern=r"^(s3://[^/\s]+)?(/[^/\s]+)+$", max_length=1000)]
    """Its address in the object store, or the whole path of a file in the pod, where nothing relative is found."""


class ServingImage(_Part):
    """The image that runs it."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*$", max_length=400)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Release(_Part):
    """One promoted model version with everything that serves it."""

    use_case: Name
    model_version: Annotated[int, Field(ge=1)]
    """Version in the model registry."""
    model: Digest
    bento: ReleasedBento
    image: ServingImage
    verdict: Digest
    """Of the gate's verdict."""
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _File(_Part):
    release: Release


def release_path(use_case: str, environment: str) -> PurePosixPath:
    """Return where the release lies below the repository's root."""
    return PurePosixPath("infra", "usecases", use_case, "envs", environment, FILE)


def render_release(release: Release) -> str:
    """Return the file's text; texts are quoted, so that no reader takes a digest of digits and one `e` for a number."""
    lines: list[str] = []

    def write(values: dict[str, Any], indent: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                lines.append(f"{indent}{key}:")
                write(value, indent + "  ")
            else:
                lines.append(f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}")

    write({"release": release.model_dump(mode="json", by_alias=True)}, "")
    return HEADER + "\n".join(lines) + "\n"


def parse_release(text: str, where: str, *, use_case: str = "") -> Release:
    """Return the release that a file declares; `where` names the file in errors.

    Raises ConfigError with path, value and what is allowed for anything that `render_release` could not have written.
    """
    if len(text) > MAX_CHARACTERS:
        raise _refused(where, f"{len(text)} characters", f"at most {MAX_CHARACTERS}")
    try:
        document = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refused(where, " ".join(str(error).split()), "valid YAML") from error
    try:
        release = _File.model_validate(document).release
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        value = "" if first["type"] in ("missing", "extra_forbidden") else f" (found {first['input']!r:.80})"
        raise _refused(where, explain(error, _File) + value, "what `driftline` writes: see docs/releases.md") from error
    if use_case and release.use_case != use_case:
        raise _refused(where, f"release.useCase: {release.use_case!r}", use_case)
    return release


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently keep one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return mapping


def _refused(where: str, measured: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"{where} is no release",
        measured=measured,
        allowed=allowed,
        next_step="restore it with `git revert`; only `driftline` writes this file",
    )
