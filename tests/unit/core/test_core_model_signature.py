"""A signature is accepted when `model-signing` accepts it, and refused when it does not: the package is the oracle."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import HealthCheck, given, settings, strategies
from model_signing import signing, verifying

from components.core.errors import ConfigError, Untrusted
from components.core.model_signature import check_signature, key_id, load_public_key, public_key_of

CONTENT = b"an archive\n" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def write_pair(folder: Path, name: str, key: Any) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


class Signed:
    """An archive, its signature by the package, and a second pair of keys that signed nothing."""

    def __init__(self, folder: Path, curve: ec.EllipticCurve) -> None:
        self.folder = folder
        self.archive = folder / "archive.tar"
        self.archive.write_bytes(CONTENT)
        self.private, self.public = write_pair(folder, "own", ec.generate_private_key(curve))
        self.other_private, self.other_public = write_pair(folder, "other", ec.generate_private_key(curve))
        self.signature = self.sign(self.archive, self.private)

    def sign(self, model: Path, private: Path) -> bytes:
        path = self.folder / "made.sig"
        signing.Config().use_elliptic_key_signer(private_key=private).sign(model, path)
        return path.read_bytes()

    def package_accepts(self, signature: bytes, *, model: Path | None = None, public: Path | None = None) -> bool:
        path = self.folder / "asked.sig"
        path.write_bytes(signature)
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public or self.public)
        try:
            verifier.verify(model or self.archive, path)
        except Exception:
            return False
        return True

    def we_accept(self, signature: bytes, digest: str = DIGEST, *, public: Path | None = None) -> bool:
        try:
            check_signature(signature, digest, load_public_key(public or self.public))
        except Untrusted:
            return False
        return True


@pytest.fixture(scope="module", params=[ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def signed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"), request.param())


def sign_statement(signed: Signed, statement: Any, **envelope: Any) -> bytes:
    """Sign any statement with the right key, as somebody who has it but does not keep to the format would."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    payload = json.dumps(statement).encode()
    kind = envelope.get("payloadType", "application/vnd.in-toto+json")
    key = load_pem_private_key(signed.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    algorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.curve.key_size]
    value = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload), ec.ECDSA(algorithm))
    bundle = json.loads(signed.signature)
    bundle["dsseEnvelope"] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(value).decode(), "keyid": ""}],
    }
    return json.dumps(bundle).encode()


def statement_of(signed: Signed) -> Any:
    return json.loads(base64.b64decode(json.loads(signed.signature)["dsseEnvelope"]["payload"]))


def test_what_the_package_signs_is_accepted_and_names_its_key(signed: Signed) -> None:
    assert signed.package_accepts(signed.signature)
    key = load_public_key(signed.public)
    check_signature(signed.signature, DIGEST, key)
    assert json.loads(signed.signature)["verificationMaterial"]["publicKey"]["hint"] == key_id(key)
    assert key_id(public_key_of(signed.private)) == key_id(key)


def test_another_key_another_archive_and_a_folder_are_refused(signed: Signed) -> None:
    key = load_public_key(signed.public)
    with pytest.raises(Untrusted, match="signed with another key"):
        check_signature(signed.signature, DIGEST, load_public_key(signed.other_public))
    with pytest.raises(Untrusted, match="of another archive"):
        check_signature(signed.signature, "0" * 64, key)
    folder = signed.folder / "model"
    folder.mkdir()
    (folder / "archive.tar").write_bytes(CONTENT)
    with pytest.raises(Untrusted, match="does not sign an archive"):
        check_signature(signed.sign(folder, signed.private), DIGEST, key)


def test_a_foreign_signature_with_a_forged_or_absent_hint_is_refused(signed: Signed) -> None:
    bundle = json.loads(signed.sign(signed.archive, signed.other_private))
    for hint in (key_id(load_public_key(signed.public)), "", None):
        bundle["verificationMaterial"]["publicKey"]["hint"] = hint
        forged = json.dumps(bundle).encode()
        with pytest.raises(Untrusted, match="does not hold"):
            check_signature(forged, DIGEST, load_public_key(signed.public))
        assert not signed.package_accepts(forged)


def another_digest(statement: Any) -> None:
    statement["predicate"]["resources"][0]["digest"] = "0" * 64


def contradicting(statement: Any) -> None:
    statement["subject"][0]["digest"]["sha256"] = "0" * 64


def two_resources(statement: Any) -> None:
    statement["predicate"]["resources"] *= 2


def two_subjects(statement: Any) -> None:
    statement["subject"] *= 2


def old_predicate(statement: Any) -> None:
    statement["predicateType"] = "https://model_signing/Digests/v0.1"


def other_statement(statement: Any) -> None:
    statement["_type"] = "https://in-toto.io/Statement/v0.1"


def other_hash(statement: Any) -> None:
    statement["predicate"]["resources"][0]["algorithm"] = "blake2b"


def no_resources(statement: Any) -> None:
    del statement["predicate"]["resources"]


@pytest.mark.parametrize(
    "change",
    [another_digest, contradicting, two_resources, two_subjects, old_predicate, other_statement, other_hash,
     no_resources],
)  # fmt: skip
def test_a_statement_that_says_something_else_is_refused_though_signed(
    signed: Signed, change: Callable[[Any], None]
) -> None:
    unchanged = sign_statement(signed, statement_of(signed))
    assert signed.we_accept(unchanged)
    assert signed.package_accepts(unchanged)
    statement = statement_of(signed)
    change(statement)
    changed = sign_statement(signed, statement)
    assert not signed.we_accept(changed)
    assert not signed.package_accepts(changed)


@pytest.mark.parametrize("content", [[], "text", None, 1, {}, {"_type": []}])
def test_what_is_no_statement_is_refused_though_signed(signed: Signed, content: Any) -> None:
    assert not signed.we_accept(sign_statement(signed, content))
    assert not signed.we_accept(sign_statement(signed, statement_of(signed), payloadType="text/plain"))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"mediaType": 1}', b"[" * 100_000, b'{"dsseEnvelope": []}']
)
def test_what_is_no_bundle_is_refused(signed: Signed, content: bytes) -> None:
    with pytest.raises(Untrusted, match="cannot be read"):
        check_signature(content, DIGEST, load_public_key(signed.public))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_a_changed_byte_is_accepted_only_where_nothing_of_meaning_changed(signed: Signed, data: Any) -> None:
    position = data.draw(strategies.integers(0, len(signed.signature) - 1))
    changed = bytearray(signed.signature)
    changed[position] ^= data.draw(strategies.integers(1, 255))
    if signed.we_accept(bytes(changed)):
        # The package also insists on the names of fields that say nothing, so it is asked about what counts.
        found, bundle = json.loads(changed)["dsseEnvelope"], json.loads(signed.signature)
        bundle["dsseEnvelope"].update(payload=found["payload"], payloadType=found["payloadType"])
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = found["signatures"][0]["sig"]
        assert signed.package_accepts(json.dumps(bundle).encode())
        assert base64.b64decode(found["payload"]) == base64.b64decode(
            json.loads(signed.signature)["dsseEnvelope"]["payload"]
        )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_no_changed_byte_of_the_signed_content_is_accepted(signed: Signed, data: Any) -> None:
    bundle = json.loads(signed.signature)
    part = data.draw(strategies.sampled_from(["payload", "sig"]))
    holder = bundle["dsseEnvelope"] if part == "payload" else bundle["dsseEnvelope"]["signatures"][0]
    content = bytearray(base64.b64decode(holder[part]))
    position = data.draw(strategies.integers(0, len(content) - 1))
    content[position] ^= data.draw(strategies.integers(1, 255))
    holder[part] = base64.b64encode(content).decode()
    assert not signed.we_accept(json.dumps(bundle).encode())


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key")
    rsa_private, rsa_public = write_pair(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    private, public = write_pair(tmp_path, "weak", ec.generate_private_key(ec.SECP192R1()))
    protected = tmp_path / "protected.pem"
    protected.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase")
        )
    )
    for path in (tmp_path / "absent.pem", tmp_path / "text.pem", rsa_public, public):
        with pytest.raises(ConfigError, match="no public key for models") as failed:
            load_public_key(path)
        assert "DRIFTLINE_MODEL_VERIFYING_KEY" in str(failed.value)
    for path in (tmp_path / "absent.pem", tmp_path / "text.pem", rsa_private, private, protected):
        with pytest.raises(ConfigError, match="no private key for models") as failed:
            public_key_of(path)
        assert "DRIFTLINE_MODEL_SIGNING_KEY" in str(failed.value)
