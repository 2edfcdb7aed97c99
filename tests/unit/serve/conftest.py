"""One Bento, built and booted once, with an online store that tests write to through Feast."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    """Import a file beside this one; tests have no packages."""
    spec = importlib.util.spec_from_file_location(f"driftline_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model() -> ModuleType:
    """Return the module that makes a small served model."""
    return _load("served_model")


@pytest.fixture(scope="session")
def served(model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return model.make_served(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def spec(model: ModuleType, served: Any) -> Any:
    from components.core.bundle import read_card
    from components.core.training_set import read_manifest
    from components.package.description import describe

    rows = read_manifest(served.training_set)
    return describe(model.PROBLEM, served.config, read_card(served.bundle), rows, served.bundle)


@pytest.fixture(scope="session")
def store(model: ModuleType, served: Any) -> Any:
    """Return the Feast store that the booted server reads."""
    return model.open_store(served.root)


@pytest.fixture(scope="session")
def write(store: Any) -> Any:
    """Return a function that writes one row of a view online: write(view, keys, values, event timestamp)."""

    def write_row(view: str, keys: dict[str, Any], values: dict[str, Any], at: datetime) -> None:
        import pandas as pd

        row = {**keys, **values, "event_timestamp": at}
        store.write_to_online_store(view, df=pd.DataFrame({name: [value] for name, value in row.items()}))

    return write_row


@pytest.fixture(scope="session")
def now(model: ModuleType) -> datetime:
    instant: datetime = model.NOW
    return instant


@pytest.fixture(scope="session")
def archive(served: Any, spec: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tar of a real Bento."""
    from components.package.bento import build_bento, write_context

    folder = tmp_path_factory.mktemp("archive")
    context = folder / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(context, spec, folder / "bento.tar")
    return folder / "bento.tar"


@pytest.fixture(scope="session")
def server(archive: Path, served: Any, spec: Any, write: Any, now: datetime) -> Iterator[Any]:
    """Boot the Bento; EWR is fresh, JFK stale, LGA from the future, badge 7 has no TTL."""
    from components.package.server import booted

    hour = timedelta(hours=1)
    write("origin_stats", {"origin": "EWR"}, {"origin_late": 0.5, "origin_kind": "big"}, now - hour)
    write("origin_stats", {"origin": "JFK"}, {"origin_late": 0.9, "origin_kind": "small"}, now - 7 * hour)
    write("origin_stats", {"origin": "LGA"}, {"origin_late": 0.1, "origin_kind": "small"}, now + hour)
    write("pair_stats", {"carrier": "AA", "origin": "EWR"}, {"pair_delay": 12.0}, now - 24 * hour)
    write("badges", {"badge": 7}, {"badge_year": 1999.0}, now - 9000 * hour)
    with booted(archive, spec.tag, online_store_url=f"sqlite:///{served.root}/online.db") as running:
        yield running
