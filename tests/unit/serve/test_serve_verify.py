"""A container serves the archive it was told to, signed by whom it was told to trust, or it does not start."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.core.digests import file_digest
from components.core.errors import ConfigError, DataError, StorageFailed, Untrusted
from components.core.model_signature import signature_path
from components.core.object_store import address, fetch, publish
from components.core.settings import Settings
from components.core.training_set import read_manifest
from components.package.bento import build_bento, write_context
from components.package.description import describe
from components.package.signing import sign_archive
from components.serve.verify import UNPACKED, verified_bento

PORT = 3000


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def write_archive(path: Path, content: bytes) -> Path:
    """Write a small tar: what verification needs no Bento for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.parent / "content.txt"
    source.write_bytes(content)
    with tarfile.open(path, "w") as tar:
        tar.add(source, "content.txt")
    source.unlink()
    return path


def packaged(settings: Settings, content: bytes = b"right") -> Path:
    """Return an archive that lies in the store, or below `home` where there is none, named by its digest."""
    made = write_archive(settings.bentos / "made", content)
    archive = made.rename(settings.bentos / f"{file_digest(made)}.tar")
    publish(settings, archive)
    return archive


def pod_of(settings: Settings, archive: Path, home: Path, **given: Any) -> Settings:
    """Return the settings of a pod with an empty disk that is told to serve an archive of the store."""
    order = {"bento": address(settings, archive), "bento_digest": archive.name.removesuffix(".tar"), "home": home}
    return settings.model_copy(update=order | given)


@pytest.fixture
def shared(settings: Settings, object_store: str) -> Settings:
    return settings.model_copy(update={"object_store_url": object_store})


@pytest.mark.s3
def test_it_comes_from_the_store_and_a_restart_reuses_only_what_it_verified(shared: Settings, tmp_path: Path) -> None:
    archive = packaged(shared)
    pod = pod_of(shared, archive, tmp_path / "pod")
    first = verified_bento(pod)
    assert (first / "content.txt").read_bytes() == b"right"
    # What a start before left in the pod's /tmp: a changed archive, and a changed folder.
    (first / "content.txt").write_bytes(b"changed")
    (pod.bentos / archive.name).write_bytes(b"changed")
    second = verified_bento(pod)
    assert (second / "content.txt").read_bytes() == b"right"
    assert list((pod.home / UNPACKED).iterdir()) == [second]
    assert file_digest(pod.bentos / archive.name) == pod.bento_digest


@pytest.mark.s3
def test_a_restart_needs_no_store_while_its_archive_is_the_right_one(
    shared: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    archive = packaged(shared)
    pod = pod_of(shared, archive, tmp_path / "pod")
    verified_bento(pod)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no longer this one")
    S3FileSystem.clear_instance_cache()
    assert (verified_bento(pod) / "content.txt").read_bytes() == b"right"
    with pytest.raises(StorageFailed):
        verified_bento(pod_of(shared, archive, tmp_path / "another pod"))


@pytest.mark.s3
@pytest.mark.parametrize("content", [b"", b"half of a tar", b"another whole one"])
def test_a_store_with_other_bytes_under_that_name_is_refused(shared: Settings, tmp_path: Path, content: bytes) -> None:
    archive = packaged(shared)
    pod = pod_of(shared, archive, tmp_path / "pod")
    archive.write_bytes(archive.read_bytes()[:5000] if content.startswith(b"half") else content)
    publish(shared, archive)
    for _start in range(2):
        with pytest.raises(DataError, match="not the one that was promoted"):
            verified_bento(pod)
    assert not (pod.home / UNPACKED).exists()


@pytest.mark.s3
def test_an_archive_that_the_store_lacks_is_named(shared: Settings, tmp_path: Path) -> None:
    archive = packaged(shared)
    absent = archive.with_name("absent.tar")
    with pytest.raises(ConfigError, match="no such Bento") as failed:
        verified_bento(pod_of(shared, absent, tmp_path / "pod", bento_digest="0" * 64))
    assert address(shared, absent) in str(failed.value)


@pytest.mark.s3
def test_a_signed_archive_is_served_and_everything_else_refused(shared: Settings, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys", "own")
    other_private, other_public = write_keys(tmp_path / "keys", "other")
    archive, other = packaged(shared), packaged(shared, b"another model")
    pod = pod_of(shared, archive, tmp_path / "pod", model_verifying_key=public)

    with pytest.raises(Untrusted, match="has no signature"):
        verified_bento(pod)
    sign_archive(shared.model_copy(update={"model_signing_key": other_private}), archive)
    with pytest.raises(Untrusted, match="signed with another key"):
        verified_bento(pod)
    signer = sign_archive(shared.model_copy(update={"model_signing_key": private}), archive)
    assert len(signer) == 64
    assert (verified_bento(pod) / "content.txt").read_bytes() == b"right"
    with pytest.raises(Untrusted, match="signed with another key"):
        verified_bento(pod.model_copy(update={"model_verifying_key": other_public}))

    # The right key, for another model: its archive is refused under this signature, whole and well signed as both are.
    sign_archive(shared.model_copy(update={"model_signing_key": private}), other)
    shutil.copyfile(signature_path(other), signature_path(archive))
    publish(shared, signature_path(archive))
    with pytest.raises(Untrusted, match="of another archive"):
        verified_bento(pod)
    swapped = pod.model_copy(update={"bento": address(shared, other)})
    with pytest.raises(DataError, match="not the one that was promoted"):
        verified_bento(swapped)
    assert (
        verified_bento(pod_of(shared, other, tmp_path / "pod", model_verifying_key=public)) / "content.txt"
    ).exists()


@pytest.mark.s3
def test_signing_again_changes_nothing_and_a_lost_upload_is_made_up_for(shared: Settings, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys", "own")
    signer = shared.model_copy(update={"model_signing_key": private})
    archive = packaged(shared)
    first = sign_archive(signer, archive)
    content = signature_path(archive).read_bytes()
    elsewhere = signer.model_copy(update={"home": tmp_path / "elsewhere"})
    there = elsewhere.bentos / archive.name
    assert fetch(elsewhere, there)
    assert sign_archive(elsewhere, there) == first
    assert signature_path(there).read_bytes() == content
    # As after a kill between the local file and its upload.
    other = packaged(shared, b"other")
    sign_archive(signer.model_copy(update={"object_store_url": ""}), other)
    made = signature_path(other).read_bytes()
    sign_archive(signer, other)
    pod = pod_of(shared, other, tmp_path / "pod", model_verifying_key=public)
    verified_bento(pod)
    assert signature_path(pod.bentos / other.name).read_bytes() == made


def test_without_a_store_the_signature_lies_beside_the_archive(settings: Settings, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys", "own")
    archive = packaged(settings)
    named = settings.model_copy(update={"bento": str(archive), "model_verifying_key": public})
    with pytest.raises(Untrusted, match="has no signature"):
        verified_bento(named)
    assert sign_archive(settings, archive) == ""
    assert not signature_path(archive).exists()
    sign_archive(settings.model_copy(update={"model_signing_key": private}), archive)
    assert (verified_bento(named) / "content.txt").read_bytes() == b"right"
    write_archive(archive, b"wrong")
    with pytest.raises(Untrusted, match="of another archive"):
        verified_bento(named)


def test_without_digest_and_key_a_path_is_served_as_it_is_and_called_unsigned(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    archive = packaged(settings)
    with caplog.at_level("WARNING"):
        assert verified_bento(settings.model_copy(update={"bento": str(archive)})) == archive
    assert "unsigned" in caplog.text


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"bento": "s3://bucket/prefix/bentos/a.tar"}, "served only by its digest"),
        ({"bento": "s3://elsewhere/bentos/a.tar", "bento_digest": "0" * 64}, "does not lie in the object store"),
        ({"bento": "s3://bucket/prefix/../a.tar", "bento_digest": "0" * 64}, "does not lie in the object store"),
        ({"bento": "https://example.com/a.tar", "bento_digest": "0" * 64}, "does not lie in the object store"),
        ({"bento": "a.tar", "bento_digest": "latest"}, "no SHA-256"),
        ({"bento": "/", "bento_digest": "0" * 64}, "an unpacked Bento cannot be checked"),
        ({"bento": "/", "model_verifying_key": Path("key.pub")}, "an unpacked Bento cannot be checked"),
    ],
)
def test_an_order_that_cannot_be_checked_is_refused(settings: Settings, order: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verified_bento(settings.model_copy(update={"object_store_url": "s3://bucket/prefix", **order}))


def test_a_key_that_is_not_there_is_no_reason_to_serve(settings: Settings, tmp_path: Path) -> None:
    archive = packaged(settings)
    with pytest.raises(ConfigError, match="no public key"):
        verified_bento(
            settings.model_copy(update={"bento": str(archive), "model_verifying_key": tmp_path / "not mounted"})
        )


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../outside.txt", tarfile.REGTYPE, ""),
        ("folder/../../outside.txt", tarfile.REGTYPE, ""),
        ("/outside.txt", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/"),
        ("link", tarfile.LNKTYPE, "content.txt"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
def test_a_well_signed_tar_holds_files_below_its_folder_and_nothing_else(
    settings: Settings, tmp_path: Path, name: str, kind: bytes, target: str
) -> None:
    private, public = write_keys(tmp_path / "keys", "own")
    archive = write_archive(settings.bentos / "made.tar", b"first")
    with tarfile.open(archive, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    sign_archive(settings.model_copy(update={"model_signing_key": private}), archive)
    before = sorted(path for path in tmp_path.rglob("*") if UNPACKED not in path.parts)
    with pytest.raises(DataError, match="cannot be read as a Bento"):
        verified_bento(settings.model_copy(update={"bento": str(archive), "model_verifying_key": public}))
    assert sorted(path for path in tmp_path.rglob("*") if UNPACKED not in path.parts) == before
    assert not Path("/outside.txt").exists()


@pytest.fixture(scope="module")
def bento(model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of a real Bento, without online features."""
    root = tmp_path_factory.mktemp("verified")
    served = model.make_served(root / "served", with_views=False)
    spec = describe(model.PROBLEM, served.config, served.card, read_manifest(served.training_set), served.bundle)
    context = root / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(context, spec, root / "bento.tar")
    return root / "bento.tar"


@pytest.fixture
def stored(bento: Path, shared: Settings, tmp_path: Path) -> tuple[Path, Settings]:
    """Return a real archive, signed and kept in the store, and the settings of a pod that is to serve it."""
    private, public = write_keys(tmp_path / "keys", "own")
    archive = shared.bentos / f"{file_digest(bento)}.tar"
    archive.parent.mkdir(parents=True)
    shutil.copyfile(bento, archive)
    publish(shared, archive)
    sign_archive(shared.model_copy(update={"model_signing_key": private}), archive)
    return archive, pod_of(shared, archive, tmp_path / "pod", model_verifying_key=public)


def start(pod: Settings, **popen: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **pod.environment(), "TMPDIR": str(pod.home.parent)}
    command = [sys.executable, "-m", "components.serve.container"]
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, **popen)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a process with all its descendants, as the end of a container does: workers have sessions of their own."""
    stopped = [psutil.Process(process.pid)]
    stopped[0].suspend()
    # What is suspended starts nobody any more, so this ends.
    while new := [each for each in stopped[0].children(recursive=True) if each not in stopped]:
        for each in new:
            each.suspend()
        stopped += new
    for each in stopped:
        each.kill()


@pytest.mark.s3
def test_a_container_that_is_refused_its_bento_ends_with_one_line(
    stored: tuple[Path, Settings], shared: Settings
) -> None:
    archive, pod = stored
    publish_changed(shared, archive)
    process = start(pod)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "DataError: the Bento is not the one that was promoted" in error
    assert "next step" in error
    assert "Traceback" not in error
    process = start(pod.model_copy(update={"bento_digest": hashlib.sha256(archive.read_bytes()).hexdigest()}))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Untrusted: the signature is that of another archive" in error


def publish_changed(shared: Settings, archive: Path) -> None:
    """Change one byte of the served code inside the tar, as somebody who may write to the bucket could."""
    content = archive.read_bytes()
    place = content.index(b"What a Bento imports")
    archive.write_bytes(content[:place] + b"w" + content[place + 1 :])
    publish(shared, archive)


def port_is_free() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) != 0


@pytest.mark.slow
@pytest.mark.s3
def test_a_container_killed_anywhere_on_its_way_serves_the_right_bento_the_next_time(
    stored: tuple[Path, Settings],
) -> None:
    if not port_is_free():
        pytest.skip(f"port {PORT} is taken")
    archive, pod = stored
    for seconds in (0.3, 0.8, 1.3, 1.8, 2.5):
        process = start(pod)
        time.sleep(seconds)
        kill_all(process)
        process.communicate(timeout=30)
    started = time.monotonic()
    process = start(pod)
    try:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
            try:
                body = json.dumps({"carrier": "AA", "origin": "EWR", "badge": None, "distance": 10})
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                answer = json.loads(connection.getresponse().read())
                break
            except OSError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < started + 60
                time.sleep(0.1)
            finally:
                connection.close()
        assert answer["model_version"] == 3
        assert len(list((pod.home / UNPACKED).iterdir())) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert "is signed by key" in error
    assert f"Bento {archive.name[:12]}: fetched and checked in" in error
