"""A full disk and a read-only home, for real: mounted file systems in a namespace of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def in_namespace(home: Path, mount: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line where `home` is another file system; then list hidden files, which only a crash leaves."""
    home.mkdir(exist_ok=True)
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    program = "from pipelines.cli import main; main()"
    script = (
        f'mount -t tmpfs -o {mount} none "$H" && "$0" -c "{program}" "$@"; code=$?; find "$H" -name ".*"; exit $code'
    )
    return subprocess.run(
        [*unshare, "sh", "-c", script, sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "DRIFTLINE_HOME": str(home), "H": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64k", "1m"])
def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path, size: str) -> None:
    home = tmp_path / "home"
    done = in_namespace(home, f"size={size}", "run", "training", "--use-case", "wind")
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "No space left on device" in said or "disk is full" in said
    assert "Traceback" not in done.stderr
    assert str(home / ".") not in done.stdout, "temporary files were left"


def test_a_read_only_home_is_named(tmp_path: Path) -> None:
    done = in_namespace(tmp_path / "home", "ro", "run", "training", "--use-case", "wind")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert "next step: make it writable" in done.stderr
    assert "Traceback" not in done.stderr
    doctor = in_namespace(tmp_path / "home", "ro", "doctor")
    assert doctor.returncode == 1
    assert "mend: make it writable" in doctor.stdout
