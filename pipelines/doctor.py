"""What this machine offers, what will be used, and how to mend what is wrong."""

import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy.engine import make_url

from components.core.errors import DriftlineError
from components.core.settings import Settings
from components.core.storage import require_writable
from components.core.usecase import list_use_cases

MIN_FREE_GB = 2.0
KFP = "2.17.0"


class Check(BaseModel):
    """One finding; `absent` is no problem, only something that will not be used."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "absent", "problem"]
    found: str
    used_for: str
    mend: str = ""


def examine(settings: Settings) -> list[Check]:
    """Return all findings, in the order in which a person would mend them."""
    return [
        _python(),
        _kfp(),
        _home(settings),
        _disk(settings),
        _use_cases(settings),
        _ledger(settings),
        _mlflow(settings),
        _online_store(settings),
        _signing(settings),
        _torch(),
        _gpu(),
        _docker(),
        _cluster(),
    ]


def _python() -> Check:
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    found = sys.version.split()[0]
    mend = "" if good else "install Python 3.11 or 3.12 and run `make setup` again"
    return Check(name="python", state="ok" if good else "problem", found=found, used_for="everything", mend=mend)


def _kfp() -> Check:
    found = version("kfp")
    mend = "" if found == KFP else f"pip install kfp=={KFP}; 2.16.1 runs the wrong branch locally"
    return Check(name="kfp", state="ok" if found == KFP else "problem", found=found, used_for="pipelines", mend=mend)


def _home(settings: Settings) -> Check:
    try:
        require_writable(settings.home)
    except DriftlineError as error:
        found = f"{settings.home}: {error.measured}"
        return Check(name="home", state="problem", found=found, used_for="all state", mend=error.next_step)
    return Check(name="home", state="ok", found=str(settings.home), used_for="all state")


def _disk(settings: Settings) -> Check:
    folder = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 1e9
    mend = "" if free >= MIN_FREE_GB else f"free {MIN_FREE_GB - free:.1f} GB, for instance by `driftline clean`"
    state: Literal["ok", "problem"] = "ok" if free >= MIN_FREE_GB else "problem"
    return Check(name="disk", state=state, found=f"{free:.1f} GB free", used_for="snapshots, runs, Bentos", mend=mend)


def _use_cases(settings: Settings) -> Check:
    names = list_use_cases(settings.feature_repo)
    mend = "" if names else "run from the repository's root, set DRIFTLINE_FEATURE_REPO, or `driftline new NAME`"
    found = ", ".join(names) or f"none below {settings.feature_repo}"
    return Check(name="use cases", state="ok" if names else "problem", found=found, used_for="pipelines", mend=mend)


def _ledger(settings: Settings) -> Check:
    from components.core.ledger.engine import open_ledger

    url = make_url(settings.ledger_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):  # noqa: PTH110
        return Check(name="ledger", state="absent", found=f"{shown}, made by the first run", used_for="champions, runs")
    try:
        open_ledger(settings.ledger_url).dispose()
    except DriftlineError as error:
        return Check(name="ledger", state="problem", found=error.what, used_for="champions, runs", mend=error.next_step)
    return Check(name="ledger", state="ok", found=shown, used_for="champions, runs")


def _mlflow(settings: Settings) -> Check:
    server = settings.mlflow_uri.startswith("http")
    found = f"{'server' if server else 'database, no server'}: {make_url(settings.mlflow_uri).render_as_string()}"
    return Check(name="mlflow", state="ok", found=found, used_for=f"tracking {version('mlflow')}, registry")


def _online_store(settings: Settings) -> Check:
    url = make_url(settings.online_store_url)
    found = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        return Check(name="online store", state="ok", found=f"{found} ({sqlite3.sqlite_version})", used_for="serving")
    return Check(name="online store", state="ok", found=found, used_for="serving")


def _signing(settings: Settings) -> Check:
    from components.core.model_signature import key_id, load_public_key, public_key_of

    used_for = "whose models are served"
    try:
        found = [
            f"{word} by key {key_id(read(path))[:12]}"
            for word, path, read in (
                ("signed", settings.model_signing_key, public_key_of),
                ("verified", settings.model_verifying_key, load_public_key),
            )
            if path
        ]
    except DriftlineError as error:
        return Check(name="signatures", state="problem", found=f"{error.what}", used_for=used_for, mend=error.next_step)
    return Check(
        name="signatures",
        state="ok" if found else "absent",
        found=", ".join(found) or "unsigned",
        used_for=used_for,
        mend="" if found else "docs/security.md, models",
    )


def _torch() -> Check:
    try:
        return Check(name="torch", state="ok", found=version("torch"), used_for="trainer torch_tabular")
    except PackageNotFoundError:
        return Check(
            name="torch",
            state="absent",
            found="not installed",
            used_for="trainer torch_tabular",
            mend="make setup EXTRA=torch",
        )


def _gpu() -> Check:
    found = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return Check(name="gpu", state="ok" if found else "absent", found=found or "none", used_for="train.device: cuda")


def _docker() -> Check:
    found = _output("docker", "version", "--format", "{{.Server.Version}}")
    return Check(
        name="docker",
        state="ok" if found else "absent",
        found=found or "no daemon answers",
        used_for="images; local runs need none",
    )


def _cluster() -> Check:
    found = _output("kubectl", "version", "--request-timeout=3s", "-o", "yaml")
    server = next((line.split()[-1] for line in found.splitlines()[::-1] if "gitVersion" in line), "")
    state: Literal["ok", "absent"] = "ok" if "serverVersion" in found else "absent"
    return Check(
        name="cluster",
        state=state,
        found=server if state == "ok" else "no cluster answers",
        used_for="Kubeflow Pipelines; local runs need none",
    )


def _output(*words: str) -> str:
    """Return what a program prints, or nothing when it is absent, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
