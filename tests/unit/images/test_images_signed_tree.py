"""`driftline infra verify`: real cosign and a real registry say which images that Git names are signed."""

import hashlib
import http.client
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from components.core.release import Release, ReleasedBento, ServingImage, render_release
from pipelines.commands.infra import command
from pipelines.image_signing import OFFLINE
from pipelines.infra.lock import write_lock
from pipelines.infra.model import Lock
from pipelines.infra.read import read_addons, read_kfp_images
from pipelines.infra.signatures import own_images

INFRA = Path(__file__).parents[3] / "infra"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def put_tree(root: Path, cpu: str, serve: str) -> Path:
    """Copy the tree, with one image for pipelines and add-ons, and one that a release names."""
    shutil.copytree(INFRA, root)
    write_lock(root, Lock(built={"cpu": cpu}), read_addons(root), read_kfp_images(root))
    folder = root / "usecases/flights"
    (folder / "pipelines").mkdir(exist_ok=True)
    pipeline = {"kind": "PipelineVersion", "spec": {"pipelineSpec": {"executors": [{"container": {"image": cpu}}]}}}
    (folder / "pipelines/training.yaml").write_text(yaml.safe_dump(pipeline))
    repository, _, digest = serve.partition("@")
    release = Release(
        use_case="flights", model_version=1, model="a" * 64, verdict="d" * 64, run_id="run-1",
        bento=ReleasedBento(tag="flights:1-a", digest="b" * 64, uri="s3://models/bentos/b.tar"),
        image=ServingImage(repository=repository, digest=digest),
    )  # fmt: skip
    (folder / "envs/staging/release.yaml").write_text(render_release(release))
    return root


def test_every_file_that_names_an_image_of_ours_is_found(tmp_path: Path) -> None:
    cpu, serve = (f"registry.example.com/team/driftline-{n}@sha256:{c * 64}" for n, c in (("cpu", "1"), ("serve", "2")))
    root = put_tree(tmp_path / "infra", cpu, serve)
    found = {image: [str(p.relative_to(root)) for p in paths] for image, paths in own_images(root).items()}
    own = [f"addons/{name}/digests.yaml" for name in ("drift-monitor", "feature-store", "pipelines")]
    assert found == {
        cpu: [*own, "lock.yaml", "usecases/flights/pipelines/training.yaml"],
        serve: ["usecases/flights/envs/staging/release.yaml"],
    }
    # Nothing of ours is named, as in the tree as it comes.
    assert own_images(INFRA) == {}


def test_without_cosign_or_key_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.core.errors import ConfigError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="cosign, which is not installed"):
        CliRunner().invoke(command, ["verify", "--dir", str(INFRA), "--key", "cosign.pub"], catch_exceptions=False)


def push(port: int, name: str, content: bytes) -> str:
    """Push an image without layers over the registry's API; return it by digest."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(method: str, path: str, body: bytes, kind: str) -> http.client.HTTPResponse:
        connection.request(method, path, body, {"content-type": kind})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in {201, 202}, answer.status
        return answer

    blob = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = ask("POST", f"/v2/{name}/blobs/uploads/", b"", "").headers["location"].partition(f":{port}")[2]
    joined = "&" if "?" in place else "?"
    ask("PUT", f"{place}{joined}digest={blob}", content, "application/octet-stream")
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": len(content)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    ask("PUT", f"/v2/{name}/manifests/{digest}", manifest, MANIFEST)
    connection.close()
    return f"127.0.0.1:{port}/{name}@{digest}"


@pytest.mark.slow
def test_a_tree_passes_once_all_its_images_are_signed_with_the_right_key(
    registry_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "of this test")
    keys = {name: tmp_path / name for name in ("own", "other")}
    for folder in keys.values():
        folder.mkdir()
        subprocess.run(["cosign", "generate-key-pair"], cwd=folder, check=True, capture_output=True)
    cpu, serve = (push(registry_port, f"team/driftline-{name}", name.encode()) for name in ("cpu", "serve"))
    root = put_tree(tmp_path / "infra", cpu, serve)

    def sign(image: str, by: str) -> None:
        key = str(keys[by] / "cosign.key")
        subprocess.run(["cosign", "sign", "--yes", *OFFLINE, "--key", key, image], check=True, capture_output=True)

    def verify(*words: str) -> tuple[int, list[str]]:
        arguments = ["verify", "--dir", str(root), "--key", str(keys["own"] / "cosign.pub"), "--json", *words]
        result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
        return result.return_value, [
            finding["what"].partition(" is not signed")[0] for finding in json.loads(result.output)
        ]

    assert verify() == (2, [cpu, serve])
    sign(cpu, "own")
    sign(serve, "other")
    assert verify() == (2, [serve])
    sign(serve, "own")
    assert verify() == (0, [])
    # One that is nowhere, as after a registry lost it, is not taken on trust.
    gone = f"{serve.partition('@')[0]}@sha256:{'0' * 64}"
    (root / "usecases/flights/pipelines/training.yaml").write_text(f"image: {gone}\n")
    assert verify() == (2, [gone])
