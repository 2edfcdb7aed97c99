"""Building a Bento: a folder with nothing but the service and the model, packed into one tar."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from components.core.bundle import CARD, ENCODING, ONNX
from components.core.digests import file_digest
from components.core.errors import PackagingFailed
from components.core.serving import MODEL_FOLDER, ServingSpec, write_spec
from components.core.settings import QUIET
from components.core.training_set import REGISTRY
from components.package import build_worker
from components.package.closure import module_closure, pinned_requirements
from components.package.contents import require_no_pickle
from components.package.reference import copy_reference

SERVICE = "components.serve.entry"
REQUIREMENTS = "requirements.txt"
BUILD_SECONDS = 300
_NEEDS = ["bentoml", "numpy", "onnxruntime", "prometheus-client", "pyarrow", "pydantic", "s3fs"]
_NEEDS_ONLINE = ["feast[postgres,redis]"]


def write_context(folder: Path, *, spec: ServingSpec, bundle: Path, training_set: Path) -> None:
    """Fill an empty folder with what goes into the Bento: code, model files and the pinned requirements.

    Raises DataError when the bundle lacks the reference profile.
    """
    root = Path(__file__).parents[2]
    for path in module_closure(root, SERVICE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)
    model = folder / MODEL_FOLDER
    model.mkdir()
    for name in (ONNX, ENCODING, CARD):
        shutil.copyfile(bundle / name, model / name)
    copy_reference(bundle, model, digest=spec.model)
    if spec.views:
        shutil.copyfile(training_set / REGISTRY, model / REGISTRY)
    write_spec(model, spec)
    needs = _NEEDS + (_NEEDS_ONLINE if spec.views else [])
    (folder / REQUIREMENTS).write_text("\n".join(pinned_requirements(needs)) + "\n", encoding="utf-8")


def build_bento(context: Path, spec: ServingSpec, target: Path) -> str:
    """Build a Bento from a context, write it as a tar to `target` and return the SHA-256 of the tar.

    The build runs in its own process with an empty store: BentoML imports the service, and the modules of the
    context must not meet those of this process. Raises PackagingFailed with BentoML's words.
    """
    name, _, version = spec.tag.partition(":")
    # BentoML adds its own version.
    lines = (context / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if not line.startswith("bentoml==")]
    with tempfile.TemporaryDirectory(prefix="driftline-build-") as home:
        archive = Path(home) / "bento.tar"
        environment = child_environment(Path(home))
        environment["PATH"] = f"{_without_installer(Path(home))}:{environment['PATH']}"
        order = {
            "service": f"{SERVICE}:service",
            "name": name,
            "version": version,
            "context": str(context),
            "packages": packages,
            "labels": {"use_case": spec.use_case, "model_version": str(spec.version), "model": spec.model[:63]},
            "archive": str(archive),
        }
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and file
                [sys.executable, "-P", build_worker.__file__],
                input=json.dumps(order),
                capture_output=True,
                text=True,
                env=environment,
                cwd=home,
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PackagingFailed("the Bento was not built in time", allowed=f"{BUILD_SECONDS} s") from error
        if done.returncode or not archive.is_file():
            raise PackagingFailed(f"BentoML could not build {spec.tag}", measured=done.stderr[-2000:].strip())
        require_no_pickle(archive)
        shutil.move(archive, target)
    return file_digest(target)


def _without_installer(home: Path) -> Path:
    """Return a folder whose `uv` refuses to work.

    BentoML 1.4 demands the command and installs it over the network where it is missing, but calls it only to lock
    packages, which ours are already.
    """
    folder = home / "bin"
    folder.mkdir()
    command = folder / "uv"
    command.write_text("#!/bin/sh\necho 'a Bento is built without installing anything' >&2\nexit 1\n", encoding="utf-8")
    command.chmod(0o755)
    return folder


def child_environment(home: Path) -> dict[str, str]:
    """Return a whole environment for a child process that keeps its state and temporary files below `home`.

    Nothing else is inherited: a build or a probe needs no secrets.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    own = {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "BENTOML_HOME": str(home / "bentoml")}
    return {**QUIET, **own, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
