"""Schedule files: strict, unique, and where they belong."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ConfigError
from components.core.usecase import list_use_cases
from pipelines.catalog import read_case
from pipelines.compile import compile_pipeline
from pipelines.schedules.model import Schedule
from pipelines.schedules.read import read_schedules
from pipelines.schedules.resolve import arguments

ROOT = Path(__file__).parents[3]
REPO = ROOT / "feature_repo"
GOOD = {"name": "flights-weekly", "use_case": "flights", "pipeline": "monitoring", "cron": "0 30 6 * * MON"}


def write(folder: Path, use_case: str, file: str, content: Any) -> Path:
    path = folder / use_case / "schedules" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_schedules_of_this_repository_fit_their_pipelines() -> None:
    declared = read_schedules(ROOT / "infra/usecases")
    assert {schedule.use_case for schedule in declared} == set(list_use_cases(REPO))
    for schedule in declared:
        case = read_case(REPO, schedule.use_case)
        spec = next(iter(yaml.safe_load_all(compile_pipeline(case, schedule.pipeline, registry=""))))
        assert set(arguments(schedule, spec)) <= set(spec["root"]["inputDefinitions"]["parameters"])
        assert not (schedule.pipeline == "training" and schedule.enabled), "monitoring decides on retraining"


def test_the_published_schema_is_the_models() -> None:
    published = json.loads((ROOT / "infra/schedule.schema.json").read_text())
    assert published == Schedule.model_json_schema()


def test_a_file_with_the_least_keys(tmp_path: Path) -> None:
    write(tmp_path, "flights", "weekly.yaml", GOOD)
    (schedule,) = read_schedules(tmp_path)
    assert (schedule.enabled, schedule.max_concurrency, schedule.catchup, schedule.version) == (True, 1, False, "")


@pytest.mark.parametrize("text", ["2026-12-01", '"2026-12-01T00:00:00"', "2026-12-01T01:00:00+01:00"])
def test_instants_are_utc_quoted_or_not(tmp_path: Path, text: str) -> None:
    write(tmp_path, "flights", "weekly.yaml", f"{yaml.safe_dump(GOOD)}starts: {text}\n")
    (schedule,) = read_schedules(tmp_path)
    assert schedule.starts == datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"corn": "0 0 0 * * *"}, "did you mean 'cron'"),
        ({"cron": "30 6 * * MON"}, "five fields"),
        ({"cron": "0 0 0 31 2 *"}, "no such day"),
        ({"pipeline": "tuning"}, "pipeline"),
        ({"max_concurrency": 11}, "max_concurrency"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"name": "Flights weekly"}, "name"),
        ({"starts": 5}, "starts"),
        ({"starts": "2026-12-01", "ends": "2026-12-02"}, "no tick"),
        ({"starts": "2026-12-02", "ends": "2026-12-01"}, "no tick"),
        ({"use_case": "wind"}, "use_case must equal its folder"),
        ({"parameters": ["as_of"]}, "parameters"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = write(tmp_path, "flights", "weekly.yaml", GOOD | change)
    with pytest.raises(ConfigError) as caught:
        read_schedules(tmp_path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n", "a: b: c\n", "", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, "flights", "weekly.yml", content)
    with pytest.raises(ConfigError, match=str(path)):
        read_schedules(tmp_path)


def test_a_name_belongs_to_one_file(tmp_path: Path) -> None:
    first = write(tmp_path, "flights", "a.yaml", GOOD)
    second = write(tmp_path, "wind", "b.yaml", GOOD | {"use_case": "wind"})
    with pytest.raises(ConfigError) as caught:
        read_schedules(tmp_path)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_folder_without_schedules_is_an_error_and_not_an_empty_wish(tmp_path: Path) -> None:
    """A mistyped --dir with --prune would delete every schedule."""
    with pytest.raises(ConfigError, match="no schedule is declared"):
        read_schedules(tmp_path)
