"""The monitor judges a champion only if its archive is signed by whom it was told to trust."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.core.errors import ConfigError, PackagingFailed, Untrusted
from components.package.signing import sign_archive


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_champion_is_watched_only_under_the_right_signature(
    world: Any, watch_world: Callable[..., Any], tmp_path: Path
) -> None:
    world.log(world.between("2024-03-01", "2024-04-01"))
    own, other = write_keys(tmp_path, "own"), write_keys(tmp_path, "other")
    asked = world.settings.model_copy(update={"model_verifying_key": own[1]})
    with pytest.raises(Untrusted, match="no signature"):
        watch_world("2024-04-02", settings=asked)
    sign_archive(world.settings.model_copy(update={"model_signing_key": other[0]}), world.archive)
    with pytest.raises(Untrusted, match="signed with another key"):
        watch_world("2024-04-02", settings=asked)
    with pytest.raises(ConfigError, match="no public key"):
        watch_world("2024-04-02", settings=asked.model_copy(update={"model_verifying_key": tmp_path / "not mounted"}))
    sign_archive(world.settings.model_copy(update={"model_signing_key": own[0]}), world.archive)
    _, evidence = watch_world("2024-04-02", settings=asked)
    assert evidence["rows"] == 31 * 96
    (tmp_path / "evidence").unlink()
    world.archive.write_bytes(world.archive.read_bytes() + b"more")
    with pytest.raises(PackagingFailed, match="not the one that was probed"):
        watch_world("2024-04-02", settings=asked)
    assert not (tmp_path / "evidence").exists()
