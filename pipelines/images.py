"""Building the container images and writing down their digests, to which pipelines are pinned."""

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, ImageFailed
from components.core.storage import write_text

log = logging.getLogger(__name__)

Target = Literal["cpu", "serve", "gpu"]
DOCKERFILE = Path("components/Dockerfile")
# What an image is made of: the commit that touched it last names its code, not every commit since.
CONTENT = (
    "components",
    "pipelines",
    "feature_repo/feature_store.yaml",
    "pyproject.toml",
    "requirements",
    ".dockerignore",
)


class Image(BaseModel):
    """One built image."""

    model_config = ConfigDict(frozen=True)

    target: Target
    name: str
    """Repository and tag."""
    identity: str
    """Docker's id of the image, `sha256:...`."""
    size_bytes: int
    """Uncompressed, as `docker image inspect` says."""
    digest: str = ""
    """`repository@sha256:...` as the registry knows it; empty when it was not pushed."""


def build_images(
    root: Path, targets: Iterable[Target], *, registry: str = "", announce: Callable[[str], None]
) -> list[Image]:
    """Build targets of the Dockerfile of a checkout and push them when a registry is given, such as `host/prefix`.

    Raises ConfigError when Docker cannot be used or `root` is no checkout, ImageFailed when a build or a push fails.
    """
    _require_docker()
    if not (root / DOCKERFILE).is_file():
        raise ConfigError(f"{root} has no {DOCKERFILE}", next_step="run it in the root of a checkout")
    revision = content_revision(root)
    if not revision:
        announce("uncommitted changes or no checkout: models of these images will not name the commit of their code")
    images = []
    for target in targets:
        announce(f"building {target}")
        image = _build(root, target, registry.rstrip("/"), revision)
        if registry:
            announce(f"pushing {image.name}")
            image = image.model_copy(update={"digest": _push(image.name)})
        images.append(image)
    return images


def write_lock(path: Path, images: Iterable[Image]) -> None:
    """Write target to `repository@sha256:...` as JSON, whole or not at all: what `driftline compile` pins.

    It holds the images of one build only: an older one of another target would bring older code.
    """
    write_text(path, json.dumps({image.target: image.digest for image in images}, indent=2, sort_keys=True) + "\n")


def content_revision(root: Path) -> str:
    """Return the last commit that touched what images are made of; empty when it is not what the files say."""
    if shutil.which("git") is None or _git(root, "status", "--porcelain", "--", *CONTENT) != "":
        return ""
    return _git(root, "log", "-1", "--format=%H", "--", *CONTENT) or ""


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip() if done.returncode == 0 else None


def _require_docker() -> None:
    if shutil.which("docker") is None:
        raise ConfigError(
            "images are built with Docker, which is not installed", next_step="install it, then run the command again"
        )
    done = _docker("version", "--format", "{{.Server.Version}}")
    if done.returncode:
        raise ConfigError(
            "the Docker engine does not answer",
            measured=_last_line(done.stderr),
            next_step="start it, or set DOCKER_HOST to one that runs",
        )


def _build(root: Path, target: Target, registry: str, revision: str) -> Image:
    repository = "/".join(part for part in (registry, f"driftline-{target}") if part)
    with tempfile.TemporaryDirectory(prefix="driftline-image-") as scratch:
        written = Path(scratch) / "id"
        command = ["docker", "build", "--iidfile", str(written), "--file", str(DOCKERFILE), "--target", target]
        # Its progress is for people, so it goes where messages go.
        built = subprocess.run(  # noqa: S603 - fixed words
            [*command, "--build-arg", f"REVISION={revision}", "."], cwd=root, stdout=sys.stderr, check=False
        )
        identity = written.read_text(encoding="utf-8").strip() if written.is_file() else ""
    if built.returncode or not identity:
        raise ImageFailed(
            f"Docker could not build {target}",
            measured=f"exit code {built.returncode}",
            next_step="read its log above; libraries come from the index that pip and uv are configured for",
        )
    # Named by content: a tag never moves to another image.
    name = f"{repository}:{identity.removeprefix('sha256:')[:12]}"
    for arguments in (("tag", identity, name), ("image", "inspect", "--format", "{{.Size}}", identity)):
        done = _docker(*arguments)
        if done.returncode:
            raise ImageFailed(f"Docker could not name {name}", measured=_last_line(done.stderr))
    return Image(target=target, name=name, identity=identity, size_bytes=int(done.stdout))


def _push(name: str) -> str:
    done = _docker("push", "--quiet", name)
    if done.returncode:
        raise ImageFailed(
            f"{name} could not be pushed",
            measured=_last_line(done.stderr),
            next_step="check the address, run `docker login`, then run the command again; what was built is kept",
        )
    repository = name.rpartition(":")[0]
    done = _docker("image", "inspect", "--format", "{{json .RepoDigests}}", name)
    known = [digest for digest in json.loads(done.stdout or "[]") if digest.startswith(f"{repository}@sha256:")]
    if len(known) != 1:
        raise ImageFailed(f"Docker knows no digest of {name}", measured=known, allowed="exactly one")
    digest: str = known[0]
    return digest


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    log.info("docker %s", " ".join(arguments))
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
