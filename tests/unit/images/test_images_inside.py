"""What the built `cpu` image can do in a pod: no network, nothing writable but /tmp, no capabilities, not root."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.images import build_images

ROOT = Path(__file__).parents[3]
PROGRAM = """
import importlib.util, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert os.getuid() == 10001
assert os.path.exists(importlib.util.cache_from_source(sys.modules['feast'].__file__)), 'no bytecode'
try:
    open('/app/probe', 'w')
except OSError:
    print('ready')
"""
LIBRARIES = [
    "alembic", "bentoml", "duckdb", "evidently", "evidently.legacy.tests", "fairlearn.metrics", "feast",
    "great_expectations", "kfp", "kfp.dsl.executor_main", "kfp_server_api", "matplotlib.pyplot", "mlflow.xgboost",
    "model_signing.signing",
    "onnx", "onnxruntime", "optuna", "pandas", "psycopg", "redis", "safetensors.numpy", "scipy.stats",
    "sklearn.metrics", "xgboost",
]  # fmt: skip

COMMIT = """
set -e; export GNUPGHOME="$(mktemp -d)"; cd "$(mktemp -d)"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Bot <bot@example.com>' ed25519 sign never
git init --quiet; git config user.name Bot; git config user.email bot@example.com
git commit --quiet --allow-empty --gpg-sign=bot@example.com --message promoted
git verify-commit HEAD; ssh -V
"""

# What a cluster makes the serving image load, and a laptop never does.
SERVED = [
    "components.serve.container", "components.serve.verify", "cryptography.hazmat.primitives.asymmetric.ec",
    "feast.infra.online_stores.postgres_online_store.postgres", "feast.infra.online_stores.redis", "hiredis", "s3fs",
]  # fmt: skip
# As a pod's emptyDir; libraries may be mapped from it.
POD = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp:exec", "--network", "none", "--cap-drop", "ALL"]  # noqa: S108


@pytest.mark.slow
def test_every_store_of_a_cluster_is_spoken_to_by_the_serving_image() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("no Docker engine runs here")
    (image,) = build_images(ROOT, ["serve"], announce=lambda _: None)
    done = subprocess.run(
        [*POD, image.name, "python3", "-c", PROGRAM, *SERVED, "feast"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("ready"), done.stderr
    assert image.size_bytes <= 650e6


@pytest.mark.slow
def test_every_library_of_the_steps_is_there() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("no Docker engine runs here")
    (image,) = build_images(ROOT, ["cpu"], announce=lambda _: None)
    # As KFP starts a step.
    step = 'set -e; cd "$(mktemp -d)"; printf "%s" "$0" > step.py; python3 step.py "$@"'
    done = subprocess.run(
        [*POD, image.name, "sh", "-ec", step, PROGRAM, *LIBRARIES], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("ready"), done.stderr
    for absent in ("pip", "uv", "cc", "gcc", "make"):
        assert subprocess.run([*POD, image.name, "sh", "-c", f"command -v {absent}"], check=False).returncode != 0
    # The promotion is a signed commit.
    done = subprocess.run([*POD, image.name, "sh", "-c", COMMIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Good signature from" in done.stderr
