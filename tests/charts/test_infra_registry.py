"""Digests asked of a real registry (Debian's docker-registry), with and without tokens, and of a chart repository."""

import base64
import contextlib
import datetime
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from components.core.errors import RegistryFailed, RegistryUnreachable
from pipelines.infra.lock import update_lock
from pipelines.infra.model import ChartSource
from pipelines.infra.read import read_lock
from pipelines.infra.registry import chart_sha256, image_digest, manifest_url

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_registry(folder: Path, auth: dict[str, Any] | None = None) -> Iterator[str]:
    """Start a registry of its own and yield HOST:PORT."""
    program = shutil.which("docker-registry")
    if not program:
        reason = "needs docker-registry (Debian and Ubuntu: apt-get install docker-registry)"
        if "registry" in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}; DRIFTLINE_REQUIRE names registry")
        pytest.skip(reason)
    address = f"127.0.0.1:{free_port()}"
    config: dict[str, Any] = {"version": 0.1, "log": {"level": "error"}, "http": {"addr": address}}
    config |= {"storage": {"filesystem": {"rootdirectory": str(folder / "data")}}}
    if auth:
        config["auth"] = auth
    (folder / "registry.yml").write_text(yaml.safe_dump(config))
    with (folder / "registry.log").open("w") as log:
        server = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                urllib3.request("GET", f"http://{address}/v2/", retries=False, timeout=2.0)
                break
            assert server.poll() is None, (folder / "registry.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def push(registry: str, path: str, tag: str, content: bytes, media_type: str = MANIFEST, token: str = "") -> str:
    """Push a manifest whose blob is `content`, as an image or a chart; return the digest as this side computes it."""
    base, headers = f"http://{registry}/v2/{path}", ({"Authorization": f"Bearer {token}"} if token else {})
    blob = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = urllib3.request("POST", f"{base}/blobs/uploads/", headers=headers)
    place = upload.headers["Location"]
    done = urllib3.request("PUT", f"{place}&digest={blob}", body=content, headers=headers)
    assert done.status == 201, done.data
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": len(content)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).encode()
    return put_manifest(registry, path, tag, manifest, media_type, headers)


def put_manifest(
    registry: str, path: str, tag: str, manifest: bytes, media_type: str, headers: dict[str, str] | None = None
) -> str:
    url = f"http://{registry}/v2/{path}/manifests/{tag}"
    done = urllib3.request("PUT", url, body=manifest, headers={**(headers or {}), "Content-Type": media_type})
    assert done.status == 201, done.data
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_the_digest_of_a_tag_is_that_of_its_manifest(registry: str) -> None:
    digest = push(registry, "team/one", "1.0", b"{}")
    assert image_digest(f"{registry}/team/one:1.0") == digest


def test_of_an_image_for_several_architectures_it_is_the_index(registry: str) -> None:
    parts = [push(registry, "team/many", arch, arch.encode()) for arch in ("amd64", "arm64")]
    manifests = [
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": arch}}
        for digest, arch in zip(parts, ("amd64", "arm64"), strict=True)
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    digest = put_manifest(registry, "team/many", "2.0", index, INDEX)
    assert image_digest(f"{registry}/team/many:2.0") == digest
    assert digest not in parts


def test_a_chart_in_an_oci_registry(registry: str) -> None:
    digest = push(registry, "charts/demo", "1.2.3", b"chart")
    source = ChartSource(repository=f"oci://{registry}/charts", chart="demo", version="1.2.3")
    assert chart_sha256(source) == digest.removeprefix("sha256:")


def test_a_tag_that_is_not_there_and_a_registry_that_does_not_answer(registry: str) -> None:
    with pytest.raises(RegistryFailed, match=r"has no team/one:9\.9.*HTTP 404") as refused:
        image_digest(f"{registry}/team/one:9.9")
    assert not isinstance(refused.value, RegistryUnreachable)
    with pytest.raises(RegistryUnreachable, match=r"does not answer.*driftline infra lock"):
        image_digest(f"127.0.0.1:{free_port()}/team/one:1.0")


@pytest.mark.parametrize(
    ("registry_name", "path", "url"),
    [
        ("docker.io", "alpine", "https://registry-1.docker.io/v2/library/alpine/manifests/3.23"),
        ("docker.io", "valkey/valkey", "https://registry-1.docker.io/v2/valkey/valkey/manifests/3.23"),
        ("quay.io", "argoproj/argoexec", "https://quay.io/v2/argoproj/argoexec/manifests/3.23"),
        ("localhost:5000", "team/one", "http://localhost:5000/v2/team/one/manifests/3.23"),
        ("localhost.example.com", "team/one", "https://localhost.example.com/v2/team/one/manifests/3.23"),
    ],
)
def test_where_a_manifest_is_read(registry_name: str, path: str, url: str) -> None:
    assert manifest_url(registry_name, path, "3.23") == url


# A registry that asks for tokens


class Issuer:
    """Issues the tokens that a registry asks for: `read` says whether anybody may have one for reading."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        self.bundle = folder / "issuer.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.read = True

    def token(self, path: str, actions: list[str]) -> str:
        def encoded(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(self.certificate).decode()]}
        now = int(time.time())
        claims: dict[str, Any] = {"iss": "issuer", "aud": "registry", "sub": "", "jti": "1"}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + 300}
        claims |= {"access": [{"type": "repository", "name": path, "actions": actions}]}
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@contextlib.contextmanager
def serve(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_anonymous_token_is_asked_for_where_the_registry_wants_one(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)

    def answer(path: str) -> tuple[int, bytes]:
        if not issuer.read or "service=registry" not in path or "team%2Fone%3Apull" not in path.replace(":", "%3A"):
            return 401, b"no"
        return 200, json.dumps({"token": issuer.token("team/one", ["pull"])}).encode()

    with serve(answer) as realm:
        token = {
            "realm": f"{realm}/token",
            "service": "registry",
            "issuer": "issuer",
            "rootcertbundle": str(issuer.bundle),
        }
        with run_registry(tmp_path, {"token": token}) as registry:
            digest = push(registry, "team/one", "1.0", b"{}", token=issuer.token("team/one", ["pull", "push"]))
            assert image_digest(f"{registry}/team/one:1.0") == digest
            issuer.read = False
            with pytest.raises(RegistryFailed, match="gave no token"):
                image_digest(f"{registry}/team/one:1.0")


# A repository of charts


def archive(version: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        text = f"apiVersion: v2\nname: demo\nversion: {version}\n".encode()
        entry = tarfile.TarInfo("demo/Chart.yaml")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def test_a_chart_of_a_repository_is_what_its_index_says() -> None:
    content = archive("1.0.0")
    sha256 = hashlib.sha256(content).hexdigest()
    entry = {"version": "v1.0.0", "urls": ["files/demo.tgz"], "digest": sha256}

    def answer(path: str) -> tuple[int, bytes]:
        files = {"/charts/index.yaml": yaml.safe_dump({"entries": {"demo": [entry]}}).encode()}
        files["/charts/files/demo.tgz"] = content
        return (200, files[path]) if path in files else (404, b"")

    with serve(answer) as url:
        source = ChartSource.model_construct(repository=f"{url}/charts", chart="demo", version="1.0.0")
        assert chart_sha256(source) == sha256
        with pytest.raises(RegistryFailed, match=r"has no chart demo 2\.0\.0"):
            chart_sha256(source.model_copy(update={"version": "2.0.0"}))
        entry["digest"] = "0" * 64
        with pytest.raises(RegistryFailed, match="is not what its repository says"):
            chart_sha256(source)


# The lock


def tree(folder: Path, registry: str, addon_image: str) -> Path:
    (folder / "kfp").mkdir(parents=True)
    kfp = {"images": [f"{registry}/kfp/api:1.0"], "hidden": []}
    (folder / "kfp/images.yaml").write_text(yaml.safe_dump(kfp))
    (folder / "addons/demo").mkdir(parents=True)
    source = {"repository": f"oci://{registry}/charts", "chart": "demo", "version": "1.2.3"}
    images = [{"image": addon_image, "values": {"image.tag": "{tag}@{digest}", "other.sha": "{hex}"}}]
    app = {"tier": "2-data", "namespace": "demo", "source": source, "images": images}
    (folder / "addons/demo/app.yaml").write_text(yaml.safe_dump(app))
    return folder


def test_what_answers_is_locked_the_rest_is_reported_and_a_repetition_finishes(registry: str, tmp_path: Path) -> None:
    api, demo = push(registry, "kfp/api", "1.0", b"api"), push(registry, "charts/demo", "1.2.3", b"chart")
    root = tree(tmp_path, registry, f"{registry}/late/image:3.0")
    failed = update_lock(root, built={}, upgrade=False)
    assert [str(error).split(";")[0] for error in failed] == [f"{registry} has no late/image:3.0"]
    assert not (root / "addons/demo/digests.yaml").exists(), "a chart without digests must not render"
    lock = read_lock(root)
    assert lock.images[f"{registry}/kfp/api:1.0"].digest == api
    assert lock.charts[f"oci://{registry}/charts/demo:1.2.3"].sha256 == demo.removeprefix("sha256:")

    late = push(registry, "late/image", "3.0", b"late")
    assert update_lock(root, built={"cpu": "r.example.com/cpu@" + late}, upgrade=False) == []
    values = yaml.safe_load((root / "addons/demo/digests.yaml").read_text())
    assert values == {"image": {"tag": f"3.0@{late}"}, "other": {"sha": late.removeprefix("sha256:")}}
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert update_lock(root, built={}, upgrade=False) == []
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_tag_that_moved_is_told_and_taken_only_when_asked(registry: str, tmp_path: Path) -> None:
    first = push(registry, "kfp/api", "1.0", b"first")
    push(registry, "charts/demo", "1.2.3", b"chart")
    push(registry, "demo/image", "3.0", b"image")
    root, image = tree(tmp_path, registry, f"{registry}/demo/image:3.0"), f"{registry}/kfp/api:1.0"
    update_lock(root, built={}, upgrade=False)
    second = push(registry, "kfp/api", "1.0", b"second")
    update_lock(root, built={}, upgrade=False)
    assert read_lock(root).images[image].digest == first
    told: list[str] = []
    update_lock(root, built={}, upgrade=True, notify=told.append)
    assert read_lock(root).images[image].digest == second
    assert told == [f"{image} was {first} (registry), is {second}"]


def test_a_registry_that_is_away_loses_nothing_and_is_asked_once(registry: str, tmp_path: Path) -> None:
    push(registry, "kfp/api", "1.0", b"first")
    push(registry, "charts/demo", "1.2.3", b"chart")
    push(registry, "demo/image", "3.0", b"image")
    root = tree(tmp_path, registry, f"{registry}/demo/image:3.0")
    update_lock(root, built={}, upgrade=False)
    text = (root / "lock.yaml").read_text()
    dead = f"127.0.0.1:{free_port()}"
    for path in (root / "kfp/images.yaml", root / "addons/demo/app.yaml", root / "lock.yaml"):
        path.write_text(path.read_text().replace(registry, dead))
    failed = update_lock(root, built={}, upgrade=True)
    assert len(failed) == 1
    assert isinstance(failed[0], RegistryUnreachable)
    assert (root / "lock.yaml").read_text() == text.replace(registry, dead)
