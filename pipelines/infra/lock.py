"""`driftline infra lock`: every third-party image and chart of the tree by content."""

import logging
from collections.abc import Callable
from pathlib import Path

import yaml

from components.core.errors import RegistryFailed, RegistryUnreachable
from components.core.storage import write_text
from pipelines.infra.generate import HEADER, generated_files
from pipelines.infra.model import Addon, KfpImages, Lock, LockedChart, LockedImage, chart_key
from pipelines.infra.read import LOCK, read_addons, read_kfp_images, read_lock
from pipelines.infra.registry import chart_sha256, image_digest

log = logging.getLogger(__name__)


def update_lock(
    root: Path, *, built: dict[str, str], upgrade: bool, notify: Callable[[str], None] = log.info
) -> list[RegistryFailed]:
    """Ask registries for what is not locked yet, write the lock and what follows from it; return what failed.

    `built` maps `cpu`, `gpu`, `serve` to an image by digest; {} leaves those of the lock. `upgrade` asks for all again:
    a tag may have moved. What failed keeps its old entry. What nothing names any more is dropped. Repeating is safe.
    Raises ConfigError for a wrong file, then nothing is written.
    """
    addons, kfp, old = read_addons(root), read_kfp_images(root), read_lock(root)
    failed: list[RegistryFailed] = []
    unreachable: dict[str, RegistryFailed] = {}
    images: dict[str, LockedImage] = {}
    for image in wanted_images(addons, kfp):
        known = old.images.get(image)
        if known and known.source == "registry" and not upgrade:
            images[image] = known
            continue
        digest = _ask(image.partition("/")[0], lambda image=image: image_digest(image), unreachable, failed)  # type: ignore[misc]
        if digest is None:
            if known:
                images[image] = known
            continue
        if known and known.digest != digest:
            notify(f"{image} was {known.digest} ({known.source}), is {digest}")
        images[image] = LockedImage(digest=digest)
    charts: dict[str, LockedChart] = {}
    for source in [addon.source for addon in addons.values() if not addon.source.path]:
        key = chart_key(source)
        if key in old.charts and not upgrade:
            charts[key] = old.charts[key]
            continue
        host = str(source.repository).split("/")[2]
        sha256 = _ask(host, lambda source=source: chart_sha256(source), unreachable, failed)  # type: ignore[misc]
        if sha256 is not None:
            charts[key] = LockedChart(sha256=sha256)
        elif key in old.charts:
            charts[key] = old.charts[key]
    lock = Lock(images=images, charts=charts, built={**old.built, **built})
    write_lock(root, lock, addons, kfp)
    return failed


def wanted_images(addons: dict[str, Addon], kfp: KfpImages) -> list[str]:
    """Return every third-party image of the tree, by tag."""
    return sorted({*kfp.all(), *(pin.image for addon in addons.values() for pin in addon.images if pin.image)})


def write_lock(root: Path, lock: Lock, addons: dict[str, Addon], kfp: KfpImages) -> None:
    """Write the lock, then what follows from it: an interruption between leaves what `check` reports."""
    document = {
        "images": {image: lock.images[image].model_dump() for image in sorted(lock.images)},
        "charts": {key: lock.charts[key].model_dump() for key in sorted(lock.charts)},
        "built": dict(sorted(lock.built.items())),
    }
    write_text(root / LOCK, HEADER + yaml.safe_dump(document, sort_keys=False, width=1000))
    for path, text in generated_files(addons, kfp, lock).items():
        if text is None:
            (root / path).unlink(missing_ok=True)
        else:
            write_text(root / path, text)


def _ask(
    host: str, question: Callable[[], str], unreachable: dict[str, RegistryFailed], failed: list[RegistryFailed]
) -> str | None:
    """Return an answer, or None; a host that does not answer is asked once."""
    if host in unreachable:
        return None
    try:
        return question()
    except RegistryUnreachable as error:
        unreachable[host] = error
        failed.append(error)
    except RegistryFailed as error:
        failed.append(error)
    return None
