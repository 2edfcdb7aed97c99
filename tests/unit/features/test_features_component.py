"""The wrapper, called with KFP's own artifact types as the local runner calls it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import read_snapshot
from components.core.training_set import read_manifest
from components.core.verdict import Verdict, write_verdict
from components.features.apply import apply_definitions


def test_the_wrapper_writes_the_folder_and_its_metadata(
    shop: Settings,
    snapshot: Callable[..., Path],
    problem: Problem,
    config: Features,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kfp.dsl import Artifact, Dataset

    from components.features.component import features

    monkeypatch.setenv("DRIFTLINE_HOME", str(shop.home))
    monkeypatch.setenv("DRIFTLINE_FEATURE_REPO", str(shop.feature_repo))
    digest = apply_definitions(shop, "shop")
    manifest = snapshot()
    verdict = tmp_path / "verdict.json"
    write_verdict(
        verdict, Verdict(gate="validate", subject=read_snapshot(manifest).digest, decision="pass", reasons=[])
    )
    out = Dataset(uri=str(tmp_path / "out"))
    # As KFP hands parameters over: integers have become floats.
    section = config.model_dump(exclude_none=True) | {"chunk_days": 1.0}
    features.python_func(
        use_case="shop",
        as_of="2024-03-10T12:00:00+00:00",
        problem=problem.model_dump(exclude_none=True),
        config=section,
        registry=digest,
        snapshot=Dataset(uri=str(manifest)),
        verdict=Artifact(uri=str(verdict)),
        training_set=out,
    )
    made = read_manifest(tmp_path / "out")
    assert out.metadata == {
        "digest": made.digest,
        "rows": 31,
        "registry": digest,
        "snapshot": read_snapshot(manifest).digest,
    }
