"""The small served model of the serving tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.core.ledger.engine import migrate
from components.core.settings import Settings

MODEL = Path(__file__).parents[1] / "serve" / "served_model.py"


@pytest.fixture(scope="session")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("driftline_served_model", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plain(model: ModuleType, tmp_path: Path) -> Any:
    """Return a model without online features: quick to build and to boot."""
    return model.make_served(tmp_path / "plain", with_views=False)


@pytest.fixture
def ledger(settings: Settings) -> Settings:
    migrate(settings.ledger_url)
    return settings
