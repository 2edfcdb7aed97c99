"""Compiling a use case's pipelines to KFP's intermediate representation, byte for byte reproducible."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from components.core.digests import text_digest
from pipelines.catalog import Case
from pipelines.image_lock import SERVING, pin_images
from pipelines.lint import lint
from pipelines.resources import check_resources

PIPELINES = ("training", "scoring", "monitoring")
"""Every pipeline of a use case."""


def compile_pipeline(case: Case, pipeline: str, registry: str, *, serving_image: str = "") -> str:
    """Return the canonical IR of one of the pipelines as YAML, for runs on this machine.

    `registry` is the feature definitions' digest. Images have tags, which the local runner ignores; `monitoring` names
    no version of `training`: whoever runs it here compiles that one anew. `serving_image`, by digest, is what a
    promotion is committed with; empty where promotions are not committed. Raises ConfigError for what a pipeline must
    not hold, and for resources that a step cannot use.
    """
    documents = _documents(_pipeline(case, pipeline, registry, training="", serving_image=serving_image))
    lint(documents, pinned=False)
    return _dump(documents)


def compile_for_cluster(case: Case, pipeline: str, registry: str, images: dict[str, str]) -> str:
    """Return the canonical IR of one of the pipelines as YAML, with images by digest; it runs locally too.

    `images` is what `read_image_lock` returns. `monitoring` starts the version of `training` that is compiled with the
    same images. Raises ConfigError for what a cluster must not get.
    """
    training = ""
    if pipeline == "monitoring":
        training = version_name(compile_for_cluster(case, "training", registry, images))
    spec, *platform = _documents(
        _pipeline(case, pipeline, registry, training=training, serving_image=images.get(SERVING, ""))
    )
    documents = [pin_images(spec, images), *platform]
    lint(documents, pinned=True)
    return _dump(documents)


def version_name(ir: str) -> str:
    """Return the name of a pipeline version: its pipeline's name and 12 digits of its content's digest."""
    spec = next(iter(yaml.safe_load_all(ir)))
    return f"{spec['pipelineInfo']['name']}-{ir_digest(ir)[:12]}"


def canonical_ir(pipeline: Any) -> str:
    """Compile a pipeline and drop what differs between processes: header comments and key order."""
    return _dump(_documents(pipeline))


def ir_digest(ir: str) -> str:
    """Return the identity of a compiled pipeline."""
    return text_digest(ir)


def _pipeline(case: Case, pipeline: str, registry: str, *, training: str, serving_image: str) -> Any:
    """Wire a pipeline; the builders import kfp, which costs 1.5 CPU-seconds."""
    check_resources(case.use_case)
    if pipeline == "training":
        from pipelines.training import build as build_training

        return build_training(
            case.use_case, sql=case.sql, suite=case.suite, registry=registry, serving_image=serving_image
        )
    if pipeline == "scoring":
        from pipelines.scoring import build as build_scoring

        return build_scoring(case.use_case, sql=case.sql, registry=registry)
    from pipelines.monitoring import build as build_monitoring

    return build_monitoring(case.use_case, sql=case.sql, training=training)


def _documents(pipeline: Any) -> list[dict[str, Any]]:
    """Compile a pipeline to its spec and, where it has one, its platform spec."""
    from kfp import compiler

    with tempfile.TemporaryDirectory(prefix="driftline-compile-") as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _dump(documents: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=True, width=120, allow_unicode=True)
