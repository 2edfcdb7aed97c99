"""`driftline infra check`: what would fail, or render something unpinned, found before anything is applied. Offline."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from components.core.errors import ConfigError
from components.core.release import ENVIRONMENTS, FILE, parse_release
from pipelines.infra.generate import KFP_COMPONENT, generated_files, missing_images, missing_of_addon
from pipelines.infra.model import Addon, ClusterSpec, KfpImages, Lock, chart_key
from pipelines.infra.pin import compile_command, compiled_versions, pinned_files, schedule_files, use_case_folders
from pipelines.infra.read import LOCK, read_addons, read_clusters, read_kfp_images, read_lock, read_yaml
from pipelines.schedules.read import read_schedule

RUN_LOCK = "run `driftline infra lock`"
LOCK_BUILT = "run `driftline infra lock --images images.json`, with the file that `make images` writes"
RUN_PIN = "run `driftline infra pin`"
COMMIT = re.compile(r"\?ref=[0-9a-f]{40}$")


class Finding(NamedTuple):
    where: str
    what: str
    next_step: str = ""


def check_tree(root: Path, clusters: list[str]) -> list[Finding]:
    """Return what is wrong for the named clusters, all of them if none is named. Raises ConfigError for no tree."""
    known = read_clusters(root)
    unknown = sorted(set(clusters) - set(known))
    if unknown:
        raise ConfigError("there is no such cluster", measured=", ".join(unknown), allowed=", ".join(known))
    chosen = {name: spec for name, spec in known.items() if name in clusters or not clusters}
    addons, kfp, lock = read_addons(root), read_kfp_images(root), read_lock(root)
    return [
        *_switches(root, chosen, addons),
        *_digests(root, chosen, addons, kfp, lock),
        *_generated(root, addons, kfp, lock),
        *_base(root),
        *(finding for folder in use_case_folders(root) for finding in check_use_case(root, folder)),
    ]


def check_use_case(root: Path, folder: Path) -> Iterator[Finding]:
    """Yield what is wrong in the folder of one use case."""
    namespace = root / "policies/use-cases" / folder.name.replace("_", "-")
    if not (namespace / "kustomization.yaml").exists():
        yield Finding(str(folder), "no namespace is declared for this use case", f"add {namespace}, as for the others")
    try:
        versions = compiled_versions(folder)
    except ConfigError as error:
        yield _finding(error)
        return
    for path in schedule_files(folder):
        yield from _attempt(lambda path=path: _schedule(path, versions))  # type: ignore[misc]
    yield from _attempt(lambda: _pinned(folder))
    for environment in sorted(path for path in (folder / "envs").glob("*") if path.is_dir()):
        yield from _environment(folder, environment)


def _switches(root: Path, clusters: dict[str, ClusterSpec], addons: dict[str, Addon]) -> Iterator[Finding]:
    for name, spec in clusters.items():
        where = str(root / "clusters" / name / "cluster.yaml")
        named = [element.get("addon", "") for element in spec.addons.elements]
        for addon in named:
            if addon not in addons:
                yield Finding(where, f"there is no add-on {addon!r}", f"one of: {', '.join(addons)}")
            elif not (root / "addons" / addon / f"values-{spec.environment}.yaml").exists():
                yield Finding(where, f"add-on {addon} has no values-{spec.environment}.yaml", "add it; `{}` will do")
        for addon in sorted(set(named) & addons.keys()):
            chart = addons[addon].source.path
            if chart and not (root.parent / chart / "Chart.yaml").exists():
                yield Finding(where, f"add-on {addon}: there is no {chart}")
        for addon in sorted({a for a in named if named.count(a) > 1}):
            yield Finding(where, f"add-on {addon} is named twice")
        for element in spec.kfp.elements:
            if not (root.parent / element.get("path", "") / "kustomization.yaml").exists() or "path" not in element:
                yield Finding(where, f"kfp: no kustomization at {element.get('path')!r}")
        if len(spec.kfp.elements) > 1:
            yield Finding(where, "kfp: two installations in one namespace")


def _digests(
    root: Path, clusters: dict[str, ClusterSpec], addons: dict[str, Addon], kfp: KfpImages, lock: Lock
) -> Iterator[Finding]:
    where = str(root / LOCK)
    used = {e.get("addon", "") for spec in clusters.values() for e in spec.addons.elements}
    for name in sorted(used & addons.keys()):
        addon = addons[name]
        for image in missing_of_addon(addon, lock):
            built = image.removeprefix("built:")
            step = LOCK_BUILT if image != built else RUN_LOCK
            yield Finding(where, f"{name}: no digest of image {built}", step)
        if not addon.source.path and chart_key(addon.source) not in lock.charts:
            yield Finding(where, f"{name}: no digest of chart {chart_key(addon.source)}", RUN_LOCK)
    if any(spec.kfp.elements for spec in clusters.values()):
        for image in missing_images(kfp.all(), lock):
            yield Finding(where, f"kfp: no digest of image {image}", RUN_LOCK)


def _generated(root: Path, addons: dict[str, Addon], kfp: KfpImages, lock: Lock) -> Iterator[Finding]:
    for path, text in generated_files(addons, kfp, lock).items():
        there = (root / path).read_text(encoding="utf-8") if (root / path).exists() else None
        if there != text:
            yield Finding(str(root / path), f"is not what {LOCK} says", RUN_LOCK)


def _base(root: Path) -> Iterator[Finding]:
    path = root / "kfp/base/kustomization.yaml"
    for resource in (read_yaml(path) or {}).get("resources", []):
        if "://" in resource and not COMMIT.search(resource):
            yield Finding(str(path), f"{resource} is not pinned", "end it with ?ref=<40 hex digits of a commit>")
    if not (root / KFP_COMPONENT).exists():
        yield Finding(str(root / KFP_COMPONENT), "is missing", RUN_LOCK)


def _schedule(path: Path, versions: dict[str, str]) -> Iterator[Finding]:
    schedule = read_schedule(path)
    pipeline = f"{schedule.use_case.replace('_', '-')}-{schedule.pipeline}"
    if versions and pipeline not in versions:
        yield Finding(
            str(path),
            f"is for pipeline {pipeline}, which is not compiled here: {', '.join(versions)}",
            f"run `{compile_command(path.parents[1])}`",
        )
    elif schedule.version and not versions:
        yield Finding(
            str(path),
            f"is pinned to {schedule.version}, and no pipeline is compiled here",
            f"run `{compile_command(path.parents[1])}`",
        )


def _pinned(folder: Path) -> Iterator[Finding]:
    for path, text in pinned_files(folder).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield Finding(str(path), "does not name the files and versions that are there", RUN_PIN)


def _environment(folder: Path, environment: Path) -> Iterator[Finding]:
    if environment.name not in ENVIRONMENTS:
        yield Finding(str(environment), "is no environment", f"one of: {', '.join(ENVIRONMENTS)}")
    for path in sorted(environment.iterdir()):
        if path.name not in (FILE, "values.yaml"):
            yield Finding(
                str(path), f"does not belong here: one {FILE} and one values.yaml per environment", "remove it"
            )
    values = environment / "values.yaml"
    if not values.exists():
        yield Finding(str(values), "is missing", "add it; `{}` will do")
    elif "release" in (read_yaml(values) or {}):
        yield Finding(str(values), f"names a release; only {FILE} does", "remove the key `release`")
    release = environment / FILE
    if release.exists():
        text = release.read_text(encoding="utf-8", errors="replace")
        try:
            parse_release(text, str(release), use_case=folder.name)
        except ConfigError as error:
            yield _finding(error)


def _attempt(checks: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from checks()
    except ConfigError as error:
        yield _finding(error)


def _finding(error: ConfigError) -> Finding:
    parts = [error.what]
    if error.measured is not None:
        parts.append(f"measured: {error.measured}")
    if error.allowed is not None:
        parts.append(f"allowed: {error.allowed}")
    return Finding("", "; ".join(parts), error.next_step)
