"""No credential is written anywhere, and nothing that we install falls back to one that everybody knows."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.secrets_in_text import secret_in, secret_name

ROOT = Path(__file__).parents[3]
PLACES = ("charts", "infra", "docs", "feature_repo", "components", "pipelines", "requirements", ".ci", ".github")
FILES = ("Makefile", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "pyproject.toml")
ENTRY = re.compile(r"""(?:^|[\s{,'"(-])([A-Za-z][\w.-]*)["']?\s*[:=]\s*("[^"]*"|'[^']*'|[^\s,}\])#;]+)""")
# The name of a Secret or of a file, a switch, a reference that somebody else resolves, or words that stand for a value.
NAMES_A_SECRET = re.compile(
    r"((workflow|step)secrets|existing\w*secrets?|secret_?name|\w+config_?secret)$", re.IGNORECASE
)
NO_VALUE = re.compile(
    r"""^["']?(\{\{|\$|<|\[|\{|\||>|%|true|false|null|none|[\d.]+["']?$|/|["']*$|\\)""", re.IGNORECASE
)
STANDS_FOR_A_VALUE = re.compile(
    r":(//)?(//)?[\w]*:(password|\$[({]?\w+[)}]?)@|(password|passwd|pwd)=[$<{]", re.IGNORECASE
)
# What an upstream chart would make up, or leave open, unless it is told where the credential is.
MUST_BE_SET = [
    ("kube-prometheus-stack", "grafana.admin.existingSecret"),
    ("mlflow", "mlflow.backendStoreUriFrom.secretKeyRef.name"),
    ("seaweedfs", "s3.existingConfigSecret"),
    ("seaweedfs", "s3.enableAuth"),
    ("valkey", "auth.usersExistingSecret"),
    ("valkey", "auth.enabled"),
]


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *PLACES, *FILES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".svg", ".parquet", ".ipynb")]


def credentials(text: str, *, configuration: bool) -> Iterator[str]:
    """Yield what looks like a credential in a text: by form everywhere, by its name in configuration and prose."""
    for number, line in enumerate(text.splitlines(), 1):
        if (kind := secret_in(line)) and not STANDS_FOR_A_VALUE.search(line):
            yield f"{number}: {kind}"
        if not configuration:
            continue
        for name, value in ENTRY.findall(line):
            named = secret_name(name) and not NAMES_A_SECRET.search(name)
            if named and not NO_VALUE.match(value):
                yield f"{number}: {name} has a value"


def fenced(text: str) -> str:
    """Return a page with nothing but its blocks of code: prose has colons of its own."""
    lines, inside = [], False
    for line in text.splitlines():
        inside ^= line.lstrip().startswith("```")
        lines.append(line if inside else "")
    return "\n".join(lines)


def is_configuration(path: Path) -> bool:
    """Tell whether names in a file are those of settings: code names variables, locks hash wheels."""
    return path.suffix in (".yaml", ".yml", ".tpl", ".toml", ".env", ".md", ".txt") or path.suffix == ""


def test_no_file_holds_a_credential() -> None:
    paths = committed()
    assert len(paths) > 300
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        lines = [*credentials(text, configuration=is_configuration(path))]
        if path.suffix == ".md":
            lines = [*credentials(text, configuration=False), *credentials(fenced(text), configuration=True)]
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    # The forms themselves, and the words that explain them.
    own = ("pipelines/secrets_in_text.py:",)
    assert [line for line in found if not line.startswith(own)] == []


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter2",
        "  adminPassword: 'prom-operator'",
        "{name: DRIFTLINE_GIT_TOKEN, password: abc}",
        "    AWS_SECRET_ACCESS_KEY: minio123",
        "apiKey = 12ab",
        "url: postgresql://driftline:driftline@db/driftline",
        "run with postgresql://me:secret@host and see",
        "DSN=host=db password=driftline",
        "key: AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN EC PRIVATE KEY-----",
    ],
)
def test_a_credential_would_be_found(line: str) -> None:
    assert list(credentials(line, configuration=True))


@pytest.mark.parametrize(
    "line",
    [
        "existingSecret: driftline",
        "secretKeyRef: {name: kfp-postgres, key: password}",
        "password: {{ .Values.password }}",
        "postgresql+psycopg://user:password@host/driftline",
        "redis://:password@host:6379/0",
        "- --postgres_config_password=$(POSTGRES_PASSWORD)",
        "automountServiceAccountToken: false",
        "tokenSeconds: 3600",
        "value: /var/run/secrets/kubeflow/pipelines/token",
    ],
)
def test_a_reference_is_none(line: str) -> None:
    assert list(credentials(line, configuration=True)) == []


def manifests(path: Path) -> list[Any]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if isinstance(found, dict)]


def test_the_tree_makes_no_secret_but_deletes_those_of_others() -> None:
    paths = [path for path in committed() if path.is_relative_to(ROOT / "infra") and path.suffix == ".yaml"]
    secrets = [(path, found) for path in paths for found in manifests(path) if found.get("kind") == "Secret"]
    assert secrets, "KFP's own are deleted by name"
    assert [path for path, found in secrets if found.get("$patch") != "delete"] == []
    generators = [path for path in paths for found in manifests(path) if found.get("secretGenerator")]
    assert generators == []


@pytest.mark.parametrize(("addon", "value"), MUST_BE_SET)
def test_what_we_install_is_told_where_its_credential_is(addon: str, value: str) -> None:
    (values,) = manifests(ROOT / "infra/addons" / addon / "values.yaml")
    for name in value.split("."):
        assert name in values, f"{addon} is left to its default {value}"
        values = values[name]
    assert values
