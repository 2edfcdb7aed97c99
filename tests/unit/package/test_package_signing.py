"""The step signs what passed, and nothing else; a kill in between leaves nothing that lies."""

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.core.digests import file_digest
from components.core.errors import ConfigError, GateRefused
from components.core.model_signature import check_signature, key_id, public_key_of, signature_path
from components.core.settings import Settings
from components.package.packaging import Packaged, package_model
from components.package.signing import sign_archive

CODE = """
import sys
from pathlib import Path
from components.core.settings import Settings
from components.package.signing import sign_archive
import model_signing.signing
print("go", flush=True)
sign_archive(Settings.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def signing(ledger: Settings, tmp_path: Path) -> Settings:
    """Return settings with a key that signs."""
    path = tmp_path / "signing.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return ledger.model_copy(update={"model_signing_key": path})


def run(settings: Settings, model: ModuleType, served: Any, **config: Any) -> Packaged:
    return package_model(
        settings,
        "rides",
        problem=model.PROBLEM,
        config=served.config.model_copy(update=config),
        model=served.bundle,
        training_set=served.training_set,
        verdict=served.verdict,
        bento=served.root / "bento",
        probe=served.root / "probe.md",
    )


@pytest.mark.slow
def test_what_passed_its_probe_is_signed_once_and_the_page_names_the_key(
    ledger: Settings, signing: Settings, model: ModuleType, plain: Any
) -> None:
    assert signing.model_signing_key is not None
    key = public_key_of(signing.model_signing_key)
    page = plain.root / "probe.md"
    # Above a limit there is no signature, without a key there is none either.
    with pytest.raises(GateRefused, match="p99 latency"):
        run(signing, model, plain, max_p99_ms=1e-3)
    (archive,) = ledger.bentos.iterdir()
    assert "| unsigned |" in page.read_text()
    assert run(ledger, model, plain).signed_by == ""
    assert list(ledger.bentos.iterdir()) == [archive]
    assert "| unsigned |" in page.read_text()

    assert run(signing, model, plain).signed_by == key_id(key)
    assert f"| `{key_id(key)[:12]}` |" in page.read_text()
    content = signature_path(archive).read_bytes()
    check_signature(content, file_digest(archive), key)
    assert sign_archive(signing, archive) == key_id(key)
    assert signature_path(archive).read_bytes() == content


def test_a_key_that_cannot_be_used_stops_the_step(signing: Settings, tmp_path: Path) -> None:
    archive = signing.bentos / "archive.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"an archive")
    public = tmp_path / "public.pem"
    assert signing.model_signing_key is not None
    key = public_key_of(signing.model_signing_key)
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for path in (public, tmp_path / "not mounted"):
        with pytest.raises(ConfigError, match="no private key"):
            sign_archive(signing.model_copy(update={"model_signing_key": path}), archive)
    assert list(signing.bentos.iterdir()) == [archive]


@pytest.mark.slow
def test_a_kill_while_signing_leaves_no_signature_or_a_whole_one(signing: Settings) -> None:
    archive = signing.bentos / "archive.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(bytes(30_000_000))
    assert signing.model_signing_key is not None
    key, digest = public_key_of(signing.model_signing_key), file_digest(archive)
    outcomes = set()
    for milliseconds in (0, 5, 15, 30, 60, 120, 300, 600):
        command = [sys.executable, "-c", CODE, signing.model_dump_json(), str(archive)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(milliseconds / 1000)
        process.kill()
        process.communicate()
        signature = signature_path(archive)
        outcomes.add(signature.is_file())
        if signature.is_file():
            check_signature(signature.read_bytes(), digest, key)
            signature.unlink()
    assert outcomes == {False, True}, "the delays meet no signature and a whole one"
    sign_archive(signing, archive)
    check_signature(signature_path(archive).read_bytes(), digest, key)
