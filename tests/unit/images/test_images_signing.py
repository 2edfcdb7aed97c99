"""Signed images: real cosign, a real registry, keys of this test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import ConfigError, ImageFailed
from pipelines.image_signing import require_cosign, sign_image
from pipelines.images import build_images

ROOT = Path(__file__).parents[3]


def run_command(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    code = f"from pipelines.cli import main; main({['images', *arguments]!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_without_cosign_or_registry_nothing_is_built(tmp_path: Path) -> None:
    (tmp_path / "cosign.key").write_text("a key")
    done = run_command(tmp_path, "--registry", "example.com/x", "--sign", "cosign.key", path=str(tmp_path))
    assert done.returncode == 2
    assert "signed with cosign, which is not installed" in done.stderr
    assert "next step" in done.stderr
    done = run_command(tmp_path, "--sign", "cosign.key", path=str(tmp_path))
    assert done.returncode == 2
    assert "--sign needs --registry" in done.stderr
    assert "building" not in done.stderr


@pytest.fixture
def registry(registry_port: int) -> str:
    """Return the address of an empty registry; skips where no Docker engine runs."""
    command = ["docker", "version"]
    if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs Docker, and no engine runs here")
    return f"127.0.0.1:{registry_port}"


def make_key(folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["cosign", "generate-key-pair"], cwd=folder, check=True, capture_output=True)
    return folder / "cosign.key"


def verifies(kind: list[str], key: Path, digest: str) -> bool:
    # Nothing was sent to the public log, so nothing is looked for there.
    command = ["cosign", *kind, "--insecure-ignore-tlog=true", "--key", str(key.with_suffix(".pub")), digest]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_pushed_image_and_its_bill_are_verified_by_the_key_alone(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "of this test")
    key, other = make_key(tmp_path / "own"), make_key(tmp_path / "other")
    (tmp_path / "components").mkdir()
    (tmp_path / "components/Dockerfile").write_text("FROM scratch AS cpu\nARG REVISION\nCOPY content /content\n")
    digests = []
    for content in ("signed", "not signed"):
        (tmp_path / "content").write_text(content)
        (image,) = build_images(tmp_path, ["cpu"], registry=f"{registry}/test", announce=lambda _: None)
        digests.append(image.digest)
        subprocess.run(["docker", "image", "rm", image.name], capture_output=True, check=True)
    bill = tmp_path / "bill.json"
    bill.write_text('{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}')
    signed, unsigned = digests
    for _again in range(2):
        sign_image(signed, key, bill)
    attestation = ["verify-attestation", "--type", "cyclonedx"]
    assert verifies(["verify"], key, signed)
    assert verifies(attestation, key, signed)
    assert not verifies(["verify"], other, signed)
    assert not verifies(attestation, other, signed)
    assert not verifies(["verify"], key, unsigned)

    monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
    with pytest.raises(ImageFailed, match="cosign could not sign"):
        sign_image(unsigned, key, bill)
    with pytest.raises(ConfigError, match="there is no key"):
        require_cosign(tmp_path / "absent.key")
