"""Images by digest: a tag may come to mean other code, which KFP's cache and a rollback would not notice."""

import json
import re
from pathlib import Path
from typing import Any

from components.core.errors import ConfigError
from components.core.images import CPU, GPU
from components.core.settings import Settings

PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
NAMES = {CPU: "cpu", GPU: "gpu"}
"""Image of a step to its key in the lock."""
SERVING = "serve"
"""Key of the image that answers with what is promoted."""
LOCK = Path("images.json")
BUILD = "run `make images REGISTRY=HOST/PREFIX`, which writes images.json, or name that file with --images"


def read_image_lock(path: Path) -> dict[str, str]:
    """Read what `make images` built: `cpu`, `gpu` and `serve` to an image with its digest.

    Raises ConfigError when there is no such file, and for an image without a digest.
    """
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no images are locked", measured=f"{path} is missing", next_step=BUILD) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON", measured=str(error), next_step=BUILD) from error
    if not isinstance(lock, dict) or not lock:
        raise ConfigError(f"{path} locks no image", measured=lock, allowed="image name to image", next_step=BUILD)
    for name, image in lock.items():
        if not isinstance(image, str) or not PINNED.fullmatch(image):
            raise ConfigError(
                f"{path}: image {name!r} has no digest",
                measured=image,
                allowed="REPOSITORY@sha256:<64 hex digits>",
                next_step=BUILD,
            )
    return lock


def serving_image(settings: Settings, lock: Path = LOCK) -> str:
    """Return the image that a promotion is committed with, '' where promotions are not committed.

    Raises ConfigError when the lock does not hold it.
    """
    if not settings.git_url:
        return ""
    images = read_image_lock(lock)
    if SERVING not in images:
        raise ConfigError(f"{lock} does not lock {SERVING!r}", measured=", ".join(images), next_step=BUILD)
    return images[SERVING]


def pin_images(spec: dict[str, Any], lock: dict[str, str]) -> dict[str, Any]:
    """Return a pipeline spec whose steps name their images as the lock does.

    Raises ConfigError when the lock lacks an image that a step needs.
    """
    executors = {}
    for name, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        executors[name] = {**executor, "container": {**container, "image": _locked(name, container["image"], lock)}}
    return {**spec, "deploymentSpec": {**spec["deploymentSpec"], "executors": executors}}


def _locked(executor: str, image: str, lock: dict[str, str]) -> str:
    key = NAMES.get(image, "")
    if key not in lock:
        raise ConfigError(
            f"step {executor.removeprefix('exec-')!r} needs an image that is not locked",
            measured=f"{key or image} of {', '.join(lock)}",
            allowed="an image of images.json",
            next_step=f'run `make images REGISTRY=HOST/PREFIX IMAGES="{" ".join(sorted({*lock, key} - {""}))}"`',
        )
    return lock[key]
