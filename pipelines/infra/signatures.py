"""`driftline infra verify`: whether every image of ours that the tree names is signed.

Asked before a change is merged. Clusters run what Git names, by digest, and nothing else changes them, so an image
that is refused here runs nowhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import ConfigError
from components.core.release import FILE, parse_release
from pipelines.image_signing import require_cosign, signature_fault
from pipelines.infra.check import Finding
from pipelines.infra.read import read_lock

IMAGE = re.compile(r"[^\s\"'@]+@sha256:[0-9a-f]{64}")
NEXT_STEP = "sign it (`driftline images --sign`), or do not merge: it is not ours"


def unsigned_images(root: Path, key: Path) -> list[Finding]:
    """Return a finding for each image of ours without a good signature by this cosign key, the public half.

    A registry that does not answer is a finding too. Raises ConfigError without cosign or key, and for a broken file.
    """
    require_cosign(key)
    findings = []
    for image, paths in own_images(root).items():
        if fault := signature_fault(image, key):
            where = ", ".join(str(path) for path in paths)
            findings.append(Finding(where, f"{image} is not signed by {key.name}: {fault}", NEXT_STEP))
    return findings


def own_images(root: Path) -> dict[str, list[Path]]:
    """Return each image of ours, by digest, with the files that name it: releases, pipelines, digests of add-ons.

    Ours are the repositories of what was built and of what was released. Raises ConfigError for a broken file.
    """
    ours = {image.partition("@")[0] for image in read_lock(root).built.values()}
    for path in sorted(root.glob(f"usecases/*/envs/*/{FILE}")):
        release = parse_release(path.read_text(encoding="utf-8"), str(path), use_case=path.parents[2].name)
        ours.add(release.image.repository)
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.yaml")):
        try:
            documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML", measured=" ".join(str(error).split())) from error
        for image in sorted(set(_images(documents))):
            if image.partition("@")[0] in ours:
                found.setdefault(image, []).append(path)
    return found


def _images(value: Any) -> Iterator[str]:
    """Yield images by digest wherever they stand: in a text, or as `repository` and `digest` of a chart's values."""
    if isinstance(value, dict):
        repository, digest = value.get("repository"), value.get("digest")
        if isinstance(repository, str) and isinstance(digest, str):
            yield f"{repository}@{digest}"
        for item in value.values():
            yield from _images(item)
    elif isinstance(value, list):
        for item in value:
            yield from _images(item)
    elif isinstance(value, str):
        yield from IMAGE.findall(value)
