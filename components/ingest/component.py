from kfp.dsl import Dataset, Output, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def ingest(use_case: str, as_of: str, problem: dict, data: dict, sql: dict, snapshot: Output[Dataset]):
    """Write the event-grained tables of a use case as they were known at an instant.

    Args:
        use_case: Name of the use case.
        as_of: ISO 8601 instant; empty means now.
        problem: Section `problem`.
        data: Section `data`.
        sql: Table name to its SELECT.
        snapshot: Manifest of the content-addressed Parquet files.
    """
    from pathlib import Path

    from components.core.sections import Data, Problem
    from components.core.settings import load_settings
    from components.core.storage import write_text
    from components.ingest.snapshot import take_snapshot

    taken = take_snapshot(
        load_settings(),
        use_case,
        problem=Problem.model_validate(problem),
        data=Data.model_validate(data),
        sql=sql,
        as_of=as_of,
    )
    snapshot.metadata.update(digest=taken.digest, rows={name: table.rows for name, table in taken.tables.items()})
    write_text(Path(snapshot.path), taken.model_dump_json(indent=2))
