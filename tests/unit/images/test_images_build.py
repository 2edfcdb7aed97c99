"""`driftline images`: with a real Docker engine where one runs, and what it says where none does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import ConfigError, ImageFailed
from pipelines.images import Image, Target, build_images, content_revision, write_lock

ROOT = Path(__file__).parents[3]


def run_command(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    code = "from pipelines.cli import main; main(['images', 'cpu'])"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def docker() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("no Docker engine runs here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder whose Dockerfile needs no base image."""
    (tmp_path / "components").mkdir()
    (tmp_path / "components/Dockerfile").write_text("FROM scratch AS cpu\nARG REVISION\nCOPY content /content\n")
    (tmp_path / "content").write_text("1")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def image(target: Target) -> Image:
    name = f"registry/driftline-{target}"
    return Image(target=target, name=f"{name}:1", identity="sha256:1", size_bytes=1, digest=f"{name}@sha256:{target}")


def test_docker_that_is_not_installed_is_named(checkout: Path) -> None:
    (checkout / "empty").mkdir()
    done = run_command(checkout, PATH=str(checkout / "empty"))
    assert done.returncode == 2
    assert "Docker, which is not installed" in done.stderr
    assert "next step: install it" in done.stderr


@pytest.mark.skipif(shutil.which("docker") is None, reason="Docker is not installed")
def test_an_engine_that_does_not_run_is_named(checkout: Path) -> None:
    done = run_command(checkout, DOCKER_HOST=f"unix://{checkout}/none.sock")
    assert done.returncode == 2
    assert "the Docker engine does not answer" in done.stderr
    assert f"{checkout}/none.sock" in done.stderr
    assert not (checkout / "images.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("docker")
def test_an_image_is_named_by_its_content(checkout: Path) -> None:
    first, again = (build_images(checkout, ["cpu"], announce=lambda _: None)[0] for _ in range(2))
    assert first == again
    assert first.name == f"driftline-cpu:{first.identity.removeprefix('sha256:')[:12]}"
    assert first.digest == ""
    (checkout / "content").write_text("2")
    (changed,) = build_images(checkout, ["cpu"], announce=lambda _: None)
    assert changed.name != first.name
    subprocess.run(["docker", "image", "rm", first.name, changed.name], capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("docker")
def test_a_failed_build_and_a_refused_push_say_so(checkout: Path) -> None:
    # Nothing listens on port 1.
    with pytest.raises(ImageFailed, match=r"could not be pushed.*docker login"):
        build_images(checkout, ["cpu"], registry="localhost:1/none", announce=lambda _: None)
    with pytest.raises(ImageFailed, match="could not build serve"):
        build_images(checkout, ["serve"], announce=lambda _: None)
    with pytest.raises(ConfigError, match="has no components/Dockerfile"):
        build_images(checkout / "components", ["cpu"], announce=lambda _: None)
    names = subprocess.run(["docker", "images", "-q", "localhost:1/none/driftline-cpu"], capture_output=True, text=True)  # noqa: PLW1510
    subprocess.run(["docker", "image", "rm", "-f", *names.stdout.split()], capture_output=True, check=True)


def test_the_revision_is_that_of_the_content(checkout: Path) -> None:
    assert content_revision(checkout) == ""
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "code")
    code = git(checkout, "rev-parse", "HEAD")
    assert content_revision(checkout) == code
    (checkout / "notes.md").write_text("prose")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "prose")
    assert git(checkout, "rev-parse", "HEAD") != code
    assert content_revision(checkout) == code
    (checkout / "components/new.py").write_text("x = 1")
    assert content_revision(checkout) == ""


def test_the_lock_names_the_images_of_one_build(tmp_path: Path) -> None:
    images = [image("cpu"), image("serve")]
    path = tmp_path / "images.json"
    write_lock(path, images)
    write_lock(path, images[:1])
    assert json.loads(path.read_text()) == {"cpu": images[0].digest}
    assert [file.name for file in tmp_path.iterdir()] == ["images.json"]
