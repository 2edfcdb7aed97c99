"""What follows from the lock: the kustomize component that pins KFP's images, and each add-on's values of digests.

A file that lacks a digest must not render, so it is not written (values) or refers to a file that is not there whose
name says what to do (kustomize knows no other message).
"""

import functools
from pathlib import Path
from typing import Any

import yaml

from pipelines.infra.model import Addon, HiddenImage, KfpImages, Lock, PinnedImage, split_image

HEADER = "# Written by `driftline infra lock`; do not edit.\n"
REFUSAL = "DIGESTS-ARE-MISSING--RUN-driftline-infra-lock.yaml"
KFP_COMPONENT = Path("kfp/components/digests/kustomization.yaml")


def generated_files(addons: dict[str, Addon], kfp: KfpImages, lock: Lock) -> dict[Path, str | None]:
    """Return each generated file's text by its path below the tree; None for one that must not exist."""
    files: dict[Path, str | None] = {KFP_COMPONENT: kfp_component(kfp, lock)}
    for name, addon in addons.items():
        files[Path("addons", name, "digests.yaml")] = addon_values(addon, lock)
    return files


def missing_images(images: list[str], lock: Lock) -> list[str]:
    return sorted({image for image in images if image not in lock.images})


def missing_of_addon(addon: Addon, lock: Lock) -> list[str]:
    """Return the images of an add-on without a digest; `built:cpu` is one of ours."""
    missing = missing_images([pin.image for pin in addon.images if pin.image], lock)
    return missing + sorted({f"built:{pin.built}" for pin in addon.images if pin.built and pin.built not in lock.built})


def addon_values(addon: Addon, lock: Lock) -> str | None:
    """Return Helm values that name an add-on's images by digest; None while one of them is unknown."""
    if missing_of_addon(addon, lock):
        return None
    values: dict[str, Any] = {}
    for pin in addon.images:
        parts = _parts(pin, lock)
        for path, text in pin.values.items():
            *folders, key = path.split(".")
            place = values
            for folder in folders:
                place = place.setdefault(folder, {})
            place[key] = functools.reduce(lambda filled, part: filled.replace(*part), parts.items(), text)
    # Quoted: Helm would read a digest of digits, or of digits and one `e`, as a number.
    return HEADER + yaml.safe_dump(values, sort_keys=False, width=1000, default_style='"')


def kfp_component(kfp: KfpImages, lock: Lock) -> str:
    """Return the kustomize component that names every image of KFP by digest."""
    head: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    missing = missing_images(kfp.all(), lock)
    if missing:
        told = "".join(f"#   {image}\n" for image in missing)
        return HEADER + f"# Without a digest:\n{told}" + _dump({**head, "resources": [REFUSAL]})
    images = [{"name": split_image(i)[0], "digest": lock.images[i].digest} for i in kfp.images]
    patches = [patch for hidden in kfp.hidden for patch in _hidden_patch(hidden, lock)]
    return HEADER + _dump({**head, "images": images, "patches": patches})


def _parts(pin: PinnedImage, lock: Lock) -> dict[str, str]:
    if pin.built:
        repository, _, digest = lock.built[pin.built].partition("@")
        tag = ""
    else:
        image = str(pin.image)
        repository, tag = split_image(image)
        digest = lock.images[image].digest
    return {
        "{repository}": repository,
        "{tag}": tag,
        "{digest}": digest,
        "{hex}": digest.removeprefix("sha256:"),
    }


def _hidden_patch(hidden: HiddenImage, lock: Lock) -> list[dict[str, Any]]:
    image = f"{split_image(hidden.image)[0]}@{lock.images[hidden.image].digest}"
    target = {"kind": "Deployment", "name": hidden.deployment}
    if hidden.env:
        container = {"name": hidden.container, "env": [{"name": hidden.env, "value": image}]}
        patch: Any = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": hidden.deployment},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
    else:
        arguments = "/spec/template/spec/containers/0/args"
        # Were the flag elsewhere in a later release, `test` fails, and something else is not replaced.
        patch = [
            {"op": "test", "path": f"{arguments}/{int(hidden.position or 0) - 1}", "value": hidden.argument},
            {"op": "replace", "path": f"{arguments}/{hidden.position}", "value": image},
        ]
    return [{"target": target, "patch": _dump(patch)}]


def _dump(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)
