"""Compiling a use case's pipelines to KFP's intermediate representation, byte for byte reproducible."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from components.core.digests import text_digest
from components.core.storage import write_text
from pipelines.catalog import Case


def compile_training(case: Case, registry: str) -> str:
    """Return the canonical IR of the training pipeline as YAML; `registry` is the feature definitions' digest."""
    from pipelines.training import build

    return canonical_ir(build(case.use_case, sql=case.sql, suite=case.suite, registry=registry))


def compile_scoring(case: Case, registry: str) -> str:
    """Return the canonical IR of the scoring pipeline as YAML; `registry` is the feature definitions' digest."""
    from pipelines.scoring import build

    return canonical_ir(build(case.use_case, sql=case.sql, registry=registry))


def compile_monitoring(case: Case, _registry: str) -> str:
    """Return the canonical IR of the monitoring pipeline as YAML; it reads no feature definitions."""
    from pipelines.monitoring import build

    return canonical_ir(build(case.use_case, sql=case.sql))


# Every pipeline of a use case.
PIPELINES: dict[str, Callable[[Case, str], str]] = {
    "training": compile_training,
    "scoring": compile_scoring,
    "monitoring": compile_monitoring,
}


def compile_pipeline(case: Case, pipeline: str, registry: str) -> str:
    """Return the canonical IR of one of the pipelines as YAML."""
    return PIPELINES[pipeline](case, registry)


def canonical_ir(pipeline: Any) -> str:
    """Compile a pipeline and drop what differs between processes: header comments and key order."""
    from kfp import compiler

    with tempfile.TemporaryDirectory(prefix="driftline-compile-") as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return yaml.safe_dump_all(documents, sort_keys=True, width=120, allow_unicode=True)


def write_ir(folder: Path, name: str, ir: str) -> Path:
    """Write an IR as `<name>.yaml` and return the path."""
    path = folder / f"{name}.yaml"
    write_text(path, ir)
    return path


def ir_digest(ir: str) -> str:
    """Return the identity of a compiled pipeline."""
    return text_digest(ir)
