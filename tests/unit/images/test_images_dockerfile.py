"""Rules of components/Dockerfile and .dockerignore that hold before anything is built."""

import re
import shlex
from pathlib import Path

import pytest

from components.core.settings import QUIET

ROOT = Path(__file__).parents[3]
IMAGES = ("cpu", "gpu", "serve")


def stages() -> dict[str, list[str]]:
    """Return stage name to its instructions, the first being the image it starts from."""
    text = re.sub(r"\\\n", " ", (ROOT / "components/Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if opened := re.match(r"FROM (\S+) AS (\S+)", line):
            current = found[opened[2]] = [opened[1]]
        elif line and not line.startswith("#"):
            current.append(line)
    return found


def test_every_image_ends_as_the_numeric_user() -> None:
    for name in IMAGES:
        users = [line for line in stages()[name] if line.startswith("USER")]
        assert users == ["USER 10001:10001"]
        assert stages()[name][0] == ("runtime-git" if name == "cpu" else "runtime")
    assert stages()["runtime-git"][0] == "runtime"


def test_libraries_lie_below_code() -> None:
    for name in IMAGES:
        copies = [line for line in stages()[name] if line.startswith("COPY")]
        assert copies[0] == f"COPY --from={name}-libraries /opt/venv /opt/venv"
        assert copies[1:]
        assert all(
            line.startswith("COPY --from=code /app/") or line == "COPY --from=code /app /app" for line in copies[1:]
        )


def test_libraries_depend_on_nothing_but_their_lock() -> None:
    for name in IMAGES:
        assert stages()[f"{name}-libraries"] == [
            "builder",
            f"COPY requirements/{name}.txt /build/",
            f"RUN sh /build/install.sh /build/{name}.txt",
        ]


def test_no_image_runs_an_installation() -> None:
    for name in IMAGES:
        assert not [line for line in stages()[name] if line.startswith(("RUN", "ADD"))]


def test_the_index_of_debian_packages_and_logs_do_not_stay() -> None:
    (line,) = stages()["runtime-git"][1:]
    assert "--no-install-recommends" in line
    assert "rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*" in line


def test_large_images_are_built_last() -> None:
    order = list(stages())
    assert order.index("cpu") < order.index("serve-libraries")
    assert order.index("serve") < order.index("gpu-libraries")


def test_libraries_are_told_to_be_quiet() -> None:
    (line,) = [line for line in stages()["runtime"] if line.startswith("ENV")]
    environment = dict(word.split("=", 1) for word in shlex.split(line)[1:])
    assert QUIET.items() <= environment.items()
    assert environment["HOME"] == "/tmp"  # noqa: S108 - the one writable folder of a pod
    assert environment["DRIFTLINE_HOME"].startswith(environment["HOME"])
    assert environment["PATH"].startswith("/opt/venv/bin:")


def is_sent(path: str) -> bool:
    """Tell whether a file reaches the builder: the last pattern that matches it or a folder of it decides."""
    sent = True
    parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!"))
        pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, candidate) for candidate in parents):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".driftline/ledger.db", ".env", ".venv/bin/python", "images.json", "kubeconfig", "id_rsa",
        "components/.env", "components/serve/.env.production", "pipelines/tls.key", "components/core/ca.pem",
        "components/core/__pycache__/errors.cpython-311.pyc", "feature_repo/flights/features.py", "tests/conftest.py",
        "dist/flights-training.yaml", "infra/secret.yaml", "requirements/lock.sh", "components/Dockerfile",
    ],
)  # fmt: skip
def test_secrets_state_and_history_do_not_reach_the_builder(path: str) -> None:
    assert not is_sent(path)


def test_what_an_image_holds_reaches_the_builder() -> None:
    code = [path for package in ("components", "pipelines") for path in (ROOT / package).rglob("*.py")]
    assert len(code) > 100
    for path in [*code, ROOT / "components/core/page.css", ROOT / "feature_repo/feature_store.yaml"]:
        assert is_sent(str(path.relative_to(ROOT))), path
    for line in (ROOT / "components/Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert is_sent(source if (ROOT / source).is_file() else f"{source}/__init__.py"), source
