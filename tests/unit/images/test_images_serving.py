"""Every package of the serving image is needed, and what it lacks is not: a real server that is refused the rest."""

import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
CODE = """
import sys
from components.serve.run import serve_bento
from components.serve.verify import verified_bento
from components.core.settings import load_settings
settings = load_settings()
serve_bento(settings, verified_bento(settings), port=int(sys.argv[1]))
"""
# What the server holds although no module of it is loaded here, with the reason.
NOT_LOADED = {
    "hiredis": "the parser that redis-py takes when it is there; only with a Redis store",
    "redis": "the online store of a cluster",
    "async-timeout": "of redis, before Python 3.11.3",
    "psycopg": "PostgreSQL as online store",
    "psycopg-binary": "PostgreSQL as online store",
    "psycopg-pool": "PostgreSQL as online store",
    "nvidia-ml-py": "BentoML asks it for GPUs at the start, then forgets it",
    "s3fs": "the inference log of a cluster goes to S3",
    "aiobotocore": "of s3fs",
    "aioitertools": "of aiobotocore",
    "botocore": "of aiobotocore",
    "jmespath": "of botocore",
    "tzdata": "zones for pandas where the system has none",
}


def lock() -> set[str]:
    text = (ROOT / "requirements/serve.txt").read_text(encoding="utf-8")
    lines = [line for line in re.findall(r"^([a-z0-9][^\\\n]*)", text, flags=re.MULTILINE) if "== 'win32'" not in line]
    return {canonicalize_name(line.split("==")[0]) for line in lines}


def make_bento(folder: Path) -> Path:
    """Build the Bento of the small model that serving is tested with; its features come from SQLite."""
    from components.core.bundle import read_card
    from components.core.training_set import read_manifest
    from components.package.bento import build_bento, write_context
    from components.package.description import describe

    path = ROOT / "tests/unit/serve/served_model.py"
    described = importlib.util.spec_from_file_location("driftline_images_model", path)
    assert described is not None
    assert described.loader is not None
    model = importlib.util.module_from_spec(described)
    sys.modules[model.__name__] = model
    described.loader.exec_module(model)
    served = model.make_served(folder / "served")
    model.open_store(served.root)
    spec = describe(
        model.PROBLEM, served.config, read_card(served.bundle), read_manifest(served.training_set), served.bundle
    )
    context = folder / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(context, spec, folder / "bento.tar")
    return folder / "bento.tar"


def sign(archive: Path, folder: Path) -> Path:
    """Sign an archive as `package` does and return the file of the key that verifies it."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from components.core.settings import embedded_settings
    from components.package.signing import sign_archive

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "own.pem", folder / "own.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    settings = embedded_settings(folder / "home", folder)
    sign_archive(settings.model_copy(update={"model_signing_key": private}), archive)
    return public


def ask(process: subprocess.Popen[bytes], port: int) -> tuple[int, Any]:
    body = json.dumps({"carrier": "AA", "origin": "EWR", "badge": None, "distance": 10})
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer in time"
            time.sleep(0.2)
        finally:
            connection.close()


@pytest.mark.slow
def test_a_server_needs_the_packages_of_its_image_and_no_others(tmp_path: Path) -> None:
    archive = make_bento(tmp_path)
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    own = {"driftline"}
    # `google` and the like belong to several packages: absent only if none of them is locked.
    absent = sorted(module for module, names in owners.items() if names.isdisjoint(lock() | own))
    assert {"kfp", "mlflow", "xgboost", "sklearn", "duckdb", "tenacity"} <= set(absent)
    records = tmp_path / "records"
    records.mkdir()
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"absent": absent, "record": str(records)}), encoding="utf-8")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DRIFTLINE_", "BENTOML_"))},
        "PYTHONPATH": f"{Path(__file__).with_name('absent')}{os.pathsep}{ROOT}",
        "DRIFTLINE_TEST_ABSENT": str(order),
        "DRIFTLINE_HOME": str(tmp_path / "home"),
        "DRIFTLINE_BENTO": str(archive),
        "DRIFTLINE_MODEL_VERIFYING_KEY": str(sign(archive, tmp_path)),
        "DRIFTLINE_ONLINE_STORE_URL": f"sqlite:///{tmp_path}/served/online.db",
    }
    process = subprocess.Popen([sys.executable, "-c", CODE, str(port)], env=environment)
    try:
        status, answer = ask(process, port)
        assert (status, answer["model_version"]) == (200, 3)
        time.sleep(1.5)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    loaded = {module for path in records.glob("*.json") for module in json.loads(path.read_text(encoding="utf-8"))}
    used = {name for module in loaded for name in owners.get(module, ())}
    assert lock() - used - set(NOT_LOADED) == set(), "excluded nowhere, loaded never"
    assert set(NOT_LOADED) <= lock()
