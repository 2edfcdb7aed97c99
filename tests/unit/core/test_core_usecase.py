"""The use-case model: a wrong key is named with its path and the nearest valid one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from components.core.errors import ConfigError
from components.core.sections import Train
from components.core.usecase import UseCase, list_use_cases, load_sql, load_suite, load_use_case

REPO = Path(__file__).parents[3] / "feature_repo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of a real use case, free to be broken."""
    name = list_use_cases(REPO)[0]
    return Path(shutil.copytree(REPO / name, tmp_path / name))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "use_case.yaml"
    raw = yaml.safe_load(path.read_text())
    for dotted, value in changes.items():
        *parents, leaf = dotted.split("__")
        target = raw
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    path.write_text(yaml.safe_dump(raw))


@pytest.mark.parametrize("name", list_use_cases(REPO))
def test_every_use_case_of_the_repository_is_valid_and_complete(name: str) -> None:
    folder = REPO / name
    use_case = load_use_case(folder)
    assert sorted(load_sql(folder, use_case)) == use_case.tables
    assert set(load_suite(folder)) <= set(use_case.tables)
    assert (folder / "features.py").is_file()
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize(
    ("change", "path", "suggestion"),
    [
        ({"evaluate__margn": 0.1}, "evaluate.margn", "margin"),
        ({"train__trainer__learning_rat": 0.1}, "train.trainer.xgboost.learning_rat", "learning_rate"),
        ({"train__holdout_dayz": 3}, "train.holdout_dayz", "holdout_days"),
        ({"owners": "me"}, "owners", "owner"),
        ({"resources__train__gpus": {}}, "resources.train.gpus", "gpu"),
    ],
)
def test_a_typo_is_named_with_its_path_and_the_nearest_key(
    folder: Path, change: dict[str, object], path: str, suggestion: str
) -> None:
    edit(folder, **change)
    with pytest.raises(ConfigError) as caught:
        load_use_case(folder)
    assert f"{path}: unknown key, did you mean '{suggestion}'?" in str(caught.value)


def test_wrong_values_are_named_with_their_path(folder: Path) -> None:
    edit(folder, train__holdout_days=0, problem__task="ranking")
    with pytest.raises(ConfigError) as caught:
        load_use_case(folder)
    assert "train.holdout_days" in str(caught.value)
    assert "problem.task" in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "a: [unclosed", "\xff"])
def test_what_is_not_a_mapping_is_refused(folder: Path, text: str) -> None:
    (folder / "use_case.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"use_case\.yaml"):
        load_use_case(folder)


def test_the_folder_and_the_name_must_agree(folder: Path) -> None:
    edit(folder, name="other")
    with pytest.raises(ConfigError, match="name must equal its folder"):
        load_use_case(folder)


def test_an_unknown_use_case_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        load_use_case(REPO / "nosuch")
    assert list_use_cases(REPO)[0] in str(caught.value)


def test_sql_files_and_declared_tables_must_match(folder: Path) -> None:
    use_case = load_use_case(folder)
    (folder / "tables" / "stray.sql").write_text("SELECT 1")
    with pytest.raises(ConfigError, match="stray"):
        load_sql(folder, use_case)
    (folder / "tables" / "stray.sql").unlink()
    (folder / "tables" / f"{use_case.problem.table}.sql").unlink()
    with pytest.raises(ConfigError, match=f"missing \\['{use_case.problem.table}'\\]"):
        load_sql(folder, use_case)


def test_a_broken_suite_is_refused(folder: Path) -> None:
    (folder / "expectations.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_suite(folder)
    (folder / "expectations.json").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        load_suite(folder)


def test_sections_survive_what_kfp_does_to_numbers() -> None:
    """KFP returns every number of a dict parameter as a float."""
    section = Train.model_validate({"trainer": {"kind": "xgboost", "rounds": 3}})
    travelled = json.loads(json.dumps(section.model_dump(exclude_none=True)), parse_int=float)
    assert Train.model_validate(travelled) == section


def test_the_published_schema_is_current() -> None:
    published = json.loads((REPO / "use_case.schema.json").read_text())
    assert published == UseCase.model_json_schema(), "run `make golden`"
