"""Where a key that verifies is named, promotion obeys it: an archive that it did not sign is not promoted."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.core.errors import ConfigError, Untrusted
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings
from components.package.signing import sign_archive
from components.promote.promote import promote


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def signed_by(settings: Settings, version: int) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    return str(client.get_model_version("flights", str(version)).tags["driftline.signed_by"])


def test_only_what_the_right_key_signed_is_promoted_and_its_version_says_so(
    embedded: Settings, approve: Any, tmp_path: Path
) -> None:
    own, other = write_keys(tmp_path, "own"), write_keys(tmp_path, "other")
    first = approve(embedded, 1, None)
    (archive,) = embedded.bentos.glob("*.tar")
    asked = first.settings.model_copy(update={"model_verifying_key": own[1]})
    with pytest.raises(Untrusted, match="no signature"):
        promote(asked, "flights", **first.arguments)
    sign_archive(embedded.model_copy(update={"model_signing_key": other[0]}), archive)
    with pytest.raises(Untrusted, match="signed with another key"):
        promote(asked, "flights", **first.arguments)
    with pytest.raises(ConfigError, match="no public key"):
        promote(
            asked.model_copy(update={"model_verifying_key": tmp_path / "not mounted"}), "flights", **first.arguments
        )
    assert read_champion(open_ledger(embedded.ledger_url), "flights") is None
    signer = sign_archive(embedded.model_copy(update={"model_signing_key": own[0]}), archive)
    assert promote(asked, "flights", **first.arguments) == "promoted"
    assert signed_by(embedded, 1) == signer


def test_without_a_key_it_is_promoted_as_not_verified(embedded: Settings, approve: Any) -> None:
    first = approve(embedded, 1, None)
    assert promote(first.settings, "flights", **first.arguments) == "promoted"
    assert signed_by(embedded, 1) == "not verified"
