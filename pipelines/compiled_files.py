"""The files that `driftline compile` writes: one per use case and pipeline."""

from typing import NamedTuple

from components.core.settings import Settings
from pipelines.catalog import read_case
from pipelines.compile import PIPELINES, compile_for_cluster, compile_pipeline, ir_digest, version_name
from pipelines.definitions import applied_definitions
from pipelines.kubernetes_objects import kubernetes_objects, objects_text


class CompiledFile(NamedTuple):
    name: str
    identity: str
    """Digest of an IR, name of a pipeline version."""
    text: str


def local_files(settings: Settings, use_case: str) -> list[CompiledFile]:
    """Compile the pipelines of a use case for runs on this machine. Raises ConfigError."""
    case = read_case(settings.feature_repo, use_case)
    registry = applied_definitions(settings, use_case)
    files = []
    for pipeline in PIPELINES:
        ir = compile_pipeline(case, pipeline, registry)
        files.append(CompiledFile(f"{use_case}-{pipeline}.yaml", f"sha256:{ir_digest(ir)}", ir))
    return files


def kubernetes_files(
    settings: Settings, use_case: str, *, images: dict[str, str], namespace: str
) -> list[CompiledFile]:
    """Compile the pipelines of a use case to Kubernetes objects. Raises ConfigError."""
    case = read_case(settings.feature_repo, use_case)
    registry = applied_definitions(settings, use_case)
    files = []
    for pipeline in PIPELINES:
        ir = compile_for_cluster(case, pipeline, registry, images)
        objects = kubernetes_objects(case.use_case, pipeline, ir, namespace)
        files.append(CompiledFile(f"{use_case}-{pipeline}.kubernetes.yaml", version_name(ir), objects_text(objects)))
    return files
