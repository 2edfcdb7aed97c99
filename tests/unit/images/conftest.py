"""An empty registry of a test's own, on this machine."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REGISTRY = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry_port(tmp_path: Path) -> Iterator[int]:
    """Yield the port of a registry for signed images; skips where it or cosign is missing."""
    for program, package in (
        ("docker-registry", "docker-registry (Debian and Ubuntu: apt-get install docker-registry)"),
        ("cosign", "cosign 3 (go install github.com/sigstore/cosign/v3/cmd/cosign@v3.0.4)"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"needs {package}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (tmp_path / "registry.yaml").write_text(REGISTRY.format(folder=tmp_path / "registry", port=port))
    with (tmp_path / "registry.log").open("w") as output:
        command = ["docker-registry", "serve", str(tmp_path / "registry.yaml")]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "registry.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()
