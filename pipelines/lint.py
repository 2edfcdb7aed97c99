"""What a compiled pipeline must not hold: secrets, images that may change, what KFP loses or refuses.

A pipeline is committed to Git, stored by KFP and shown to everybody who may see a run; secrets reach steps by reference
to a Kubernetes Secret only.
"""

from collections.abc import Iterator
from typing import Any

from components.core.digests import canonical_json
from components.core.errors import ConfigError
from pipelines.catalog import MAX_PARAMETER_BYTES
from pipelines.environment import ADDRESSES, CREDENTIALS, IDENTITY, SHARED, VARIABLES
from pipelines.image_lock import BUILD, PINNED
from pipelines.secrets_in_text import secret_in, secret_name

REFERENCES = ("secretAsEnv", "secretAsVolume", "imagePullSecret")
"""Parts of the platform spec that name secrets and hold none."""
# Mappings whose keys are names of columns or tables: a column may well be called `token`.
NAMES_OF_DATA = ("columns", "inputs", "sources", "sql", "suite", "tables")
PACKING = ("constant", "defaultValue", "runtimeValue")

BY_REFERENCE = f"keep it under a key of the Secret `{SHARED}` and take it out here; where it was committed, revoke it"


def lint(documents: list[dict[str, Any]], *, pinned: bool) -> None:
    """Raise ConfigError for the first thing that must not be in a pipeline: its spec and its platform spec.

    `pinned`: every image must have its digest.
    """
    for found in findings(documents, pinned=pinned):
        raise found


def findings(documents: list[dict[str, Any]], *, pinned: bool) -> Iterator[ConfigError]:
    """Yield what `lint` raises; a secret is never quoted."""
    spec, *platform = documents
    for document in documents:
        yield from _secrets(document, ())
        yield from _nulls(document, ())
    yield from _sizes(spec, ())
    if pinned:
        yield from _images(spec)
    for each in platform:
        yield from _environment(each)


def _secrets(value: Any, path: tuple[str, ...]) -> Iterator[ConfigError]:
    if isinstance(value, str) and (kind := secret_in(value)):
        yield _error(path, f"{kind} in a pipeline", kind, "no secret", BY_REFERENCE)
    parent = next((key for key in reversed(path) if key not in PACKING), "")
    names_count = parent not in NAMES_OF_DATA and not set(path) & set(REFERENCES)
    for key, inner in _children(value):
        here = (*path, key)
        # `{name: ..., value: ...}` is how an environment variable is written.
        name = str(value.get("name", "")) if key == "value" and isinstance(value, dict) else key
        if names_count and key not in REFERENCES and secret_name(name) and _holds_text(inner):
            yield _error(here, f"{name!r} looks like a secret", f"a value named {name!r}", "no secret", BY_REFERENCE)
        else:
            yield from _secrets(inner, here)


def _holds_text(value: Any) -> bool:
    """Tell whether a value is, holds or declares text; numbers, such as `max_tokens`, are no secrets."""
    if isinstance(value, dict) and "parameterType" in value:
        return value["parameterType"] in ("STRING", "STRUCT", "LIST")
    if isinstance(value, str):
        return bool(value)
    return any(_holds_text(inner) for _, inner in _children(value))


def _nulls(value: Any, path: tuple[str, ...]) -> Iterator[ConfigError]:
    if value is None:
        yield _error(path, "KFP knows no null", "null", "a value, or no key", "leave the key out")
    for key, inner in _children(value):
        yield from _nulls(inner, (*path, key))


def _sizes(value: Any, path: tuple[str, ...]) -> Iterator[ConfigError]:
    for key, inner in _children(value):
        if key in ("defaultValue", "constant"):
            size = len(canonical_json(inner).encode())
            if size > MAX_PARAMETER_BYTES:
                yield _error(
                    (*path, key),
                    "too large to travel as a parameter",
                    f"{size} bytes",
                    f"{MAX_PARAMETER_BYTES} bytes",
                    "shorten it, or move shared SQL into a view",
                )
        else:
            yield from _sizes(inner, (*path, key))


def _images(spec: dict[str, Any]) -> Iterator[ConfigError]:
    for name, executor in spec["deploymentSpec"]["executors"].items():
        image = executor["container"]["image"]
        if not PINNED.fullmatch(image):
            path = ("deploymentSpec", "executors", name, "container", "image")
            yield _error(path, "an image has no digest", image, "REPOSITORY@sha256:<64 hex digits>", BUILD)


def _environment(platform: dict[str, Any]) -> Iterator[ConfigError]:
    """Yield variables that the step would read from somewhere else than everybody does."""
    known = {SHARED: {*(VARIABLES.get(key, key) for key in ADDRESSES), *CREDENTIALS}, "": set(IDENTITY)}
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in executors.items():
        path = ("platforms", "kubernetes", "deploymentSpec", "executors", name)
        read = [("", field["name"]) for field in executor.get("fieldPathAsEnv", [])]
        for source in (*executor.get("configMapAsEnv", []), *executor.get("secretAsEnv", [])):
            holder = source.get("configMapName") or source.get("secretName", "")
            read += [(holder, pair["envVar"]) for pair in source["keyToEnv"]]
        for holder, variable in read:
            if variable not in known.get(holder, ()):
                yield _error(
                    path,
                    "a step reads a variable that no step knows",
                    f"{variable} of {holder or 'the pod'}",
                    f"a variable of `{SHARED}`: {', '.join(sorted(known[SHARED]))}",
                    "add it to pipelines/environment.py and to components/core/settings.py",
                )


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, list):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)]
    return []


def _error(path: tuple[str, ...], what: str, measured: str, allowed: str, next_step: str) -> ConfigError:
    where = ".".join(path).replace(".[", "[")
    return ConfigError(f"{where}: {what}", measured=measured, allowed=allowed, next_step=next_step)
