"""What is in an image, as a CycloneDX 1.6 document: asked of the image itself, not of the files it was made from.

Specification: https://cyclonedx.org/docs/1.6/json/. Equal images give equal bytes: no clock, and a serial number that
derives from the image.
"""

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from components.core.errors import ImageFailed
from components.core.storage import write_text

NAMESPACE = uuid.UUID("8d8a7f0b-4f0e-5d5b-9a35-1b8f6f2c0a11")
INVENTORY = """
import importlib.metadata, json, platform, subprocess
shown = "${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\n"
packages = subprocess.run(["dpkg-query", "-W", "-f", shown], capture_output=True, text=True, check=True).stdout
libraries = sorted({
    (found.metadata["Name"], found.version, found.metadata.get("License-Expression") or "")
    for found in importlib.metadata.distributions()
})
print(json.dumps({
    "system": platform.freedesktop_os_release(), "python": platform.python_version(), "libraries": libraries,
    "packages": [line.split("\\t") for line in packages.splitlines()],
}))
"""


class Inventory(BaseModel):
    """What an image holds."""

    model_config = ConfigDict(frozen=True)

    system: dict[str, str]
    """`os-release` of the image."""
    python: str
    libraries: list[tuple[str, str, str]]
    """Name, version and SPDX licence expression ('' where the package does not say) of Python packages."""
    packages: list[tuple[str, str, str, str]]
    """Name, version, architecture and source package of Debian packages."""


def write_bill(lock: Path, target: str, name: str, identity: str, digest: str) -> Path:
    """Write the bill of materials of an image beside `lock`, such as `images.cpu.cdx.json`, and return its path.

    Raises ImageFailed, StorageFailed.
    """
    path = lock.with_name(f"{lock.stem}.{target}.cdx.json")
    document = describe_image(name, identity, digest, take_inventory(identity))
    write_text(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path


def take_inventory(identity: str) -> Inventory:
    """Ask an image what it holds, in a container without a network. Raises ImageFailed when it does not answer."""
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--entrypoint", "python3", identity]
    done = subprocess.run([*command, "-c", INVENTORY], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ImageFailed(
            f"{identity[:19]} does not say what is in it",
            measured=done.stderr.strip().rpartition("\n")[2],
            allowed="an image with Python and dpkg",
        )
    return Inventory.model_validate_json(done.stdout)


def describe_image(name: str, identity: str, digest: str, inventory: Inventory) -> dict[str, Any]:
    """Return the bill of materials of an image; `digest` is `repository@sha256:...`, empty when it was not pushed."""
    reference = f"pkg:oci/{name.rpartition('/')[2]}@{digest.rpartition('@')[2] or identity}"
    image = {
        "type": "container",
        "bom-ref": reference,
        "name": digest.rpartition("@")[0] or name,
        "version": digest.rpartition("@")[2] or identity,
        "hashes": [{"alg": "SHA-256", "content": (digest or identity).rpartition(":")[2]}],
    }
    components = [_system(inventory.system), _python(inventory.python)]
    components += [_library(*library) for library in inventory.libraries]
    components += [_package(inventory.system, *package) for package in inventory.packages]
    references = sorted(str(component["bom-ref"]) for component in components)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest or identity)}",
        "version": 1,
        "metadata": {"component": image},
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
        "dependencies": [{"ref": reference, "dependsOn": references}],
    }


def _system(release: dict[str, str]) -> dict[str, Any]:
    name, version = release.get("ID", "linux"), release.get("VERSION_ID", "")
    return {"type": "operating-system", "bom-ref": f"os:{name}-{version}", "name": name, "version": version}


def _python(version: str) -> dict[str, Any]:
    # Compiled by the maker of the base image, so no package manager knows it.
    reference = f"pkg:generic/python@{version}"
    return {"type": "platform", "bom-ref": reference, "purl": reference, "name": "python", "version": version}


def _library(name: str, version: str, licence: str) -> dict[str, Any]:
    # A package URL has the normalized name (PEP 503), dots excepted in none.
    reference = f"pkg:pypi/{name.lower().replace('_', '-').replace('.', '-')}@{quote(version)}"
    licences = {"licenses": [{"expression": licence}]} if licence else {}
    found = {"type": "library", "bom-ref": reference, "purl": reference, "name": name, "version": version}
    return found | licences


def _package(system: dict[str, str], name: str, version: str, architecture: str, source: str) -> dict[str, Any]:
    distribution = system.get("ID", "debian")
    qualifiers = f"arch={architecture}&distro={distribution}-{system.get('VERSION_ID', '')}"
    if source != name:
        qualifiers += f"&upstream={quote(source, safe='+')}"
    reference = f"pkg:deb/{distribution}/{quote(name, safe='')}@{quote(version, safe='')}?{qualifiers}"
    return {"type": "library", "bom-ref": reference, "purl": reference, "name": name, "version": version}
