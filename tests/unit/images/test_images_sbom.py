"""Bills of materials: valid CycloneDX of what an image really holds, equal for equal images."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.core.errors import ImageFailed
from pipelines.images import build_images
from pipelines.sbom import Inventory, describe_image, take_inventory, write_bill

ROOT = Path(__file__).parents[3]
INVENTORY = Inventory(
    system={"ID": "debian", "VERSION_ID": "12"},
    python="3.11.9",
    libraries=[("Flask_Thing", "1.0", "BSD-3-Clause"), ("plain.name", "2!1.0+local", "")],
    packages=[
        ("libstdc++6", "12.2.0-14+deb12u1", "amd64", "gcc-12"),
        ("git", "1:2.39.5-0+deb12u2", "amd64", "git"),
    ],
)
NAME = "registry.example.com/team/driftline-cpu:0123456789ab"
IDENTITY = f"sha256:{'1' * 64}"
DIGEST = f"registry.example.com/team/driftline-cpu@sha256:{'2' * 64}"


def problems(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


@pytest.mark.parametrize("digest", [DIGEST, ""])
def test_it_is_valid_and_names_every_package_by_its_url(digest: str) -> None:
    document = describe_image(NAME, IDENTITY, digest, INVENTORY)
    assert problems(json.dumps(document)) is None
    assert problems(json.dumps(document | {"surplus": 1})) is not None, "the validator sees a wrong document"
    urls = [PackageURL.from_string(component["purl"]) for component in document["components"] if "purl" in component]
    assert {(url.type, url.name, url.version) for url in urls} == {
        ("generic", "python", "3.11.9"),
        ("pypi", "flask-thing", "1.0"),
        ("pypi", "plain-name", "2!1.0+local"),
        ("deb", "libstdc++6", "12.2.0-14+deb12u1"),
        ("deb", "git", "1:2.39.5-0+deb12u2"),
    }
    assert {url.qualifiers.get("upstream") for url in urls if url.type == "deb"} == {"gcc-12", None}  # type: ignore[union-attr]
    image = document["metadata"]["component"]
    assert image["version"] == (f"sha256:{'2' * 64}" if digest else IDENTITY)
    assert document["dependencies"][0]["ref"] == image["bom-ref"]


def test_equal_images_give_equal_documents_and_others_other_serial_numbers() -> None:
    first, again = (json.dumps(describe_image(NAME, IDENTITY, DIGEST, INVENTORY)) for _ in range(2))
    assert first == again
    assert describe_image(NAME, f"sha256:{'3' * 64}", "", INVENTORY)["serialNumber"] not in first


def require_docker() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("no Docker engine runs here")


@pytest.mark.slow
def test_an_image_that_cannot_say_what_it_holds_is_an_error(tmp_path: Path) -> None:
    require_docker()
    (tmp_path / "components").mkdir()
    (tmp_path / "components/Dockerfile").write_text("FROM scratch AS cpu\nARG REVISION\nCOPY content /content\n")
    (tmp_path / "content").write_text("no Python")
    (image,) = build_images(tmp_path, ["cpu"], announce=lambda _: None)
    try:
        with pytest.raises(ImageFailed, match="does not say what is in it"):
            write_bill(tmp_path / "images.json", "cpu", image.name, image.identity, "")
        assert not list(tmp_path.glob("images.*"))
    finally:
        subprocess.run(["docker", "image", "rm", image.name], capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "serve"])
def test_the_bill_of_a_built_image_is_its_lock_and_its_system(tmp_path: Path, target: str) -> None:
    require_docker()
    (image,) = build_images(ROOT, [target], announce=lambda _: None)  # type: ignore[list-item]
    path = write_bill(tmp_path / "images.json", target, image.name, image.identity, image.digest)
    assert path.name == f"images.{target}.cdx.json"
    assert problems(path.read_text()) is None
    found = take_inventory(image.identity)
    lines = (ROOT / f"requirements/{target}.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    here = {"sys_platform": "linux", "platform_system": "Linux", "python_full_version": found.python}
    locked = {canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate(here)}
    # Our own wheel; the serving image has its modules only.
    own = {"driftline"} if target == "cpu" else set()
    assert {canonicalize_name(name) for name, _, _ in found.libraries} == locked | own
    packages = {name for name, _, _, _ in found.packages}
    assert {"libc6", "openssl", "ca-certificates"} <= packages
    assert ({"git", "gpg"} <= packages) == (target == "cpu")
