"""What a finished scoring run says about itself."""

from typing import Any

from components.core.settings import Settings
from pipelines.commands.summary import outline
from pipelines.local import RunRecord
from pipelines.reports import artifact, metrics


def summarize(settings: Settings, record: RunRecord) -> str:
    """Describe a scoring run in a few lines, with the next step."""
    found = as_json_document(settings, record)
    lines = [f"run {record.id} {record.state} after {found['seconds']} s"]
    failed = record.failed_step
    if failed and failed.failure:
        lines += [f"{failed.name}: {failed.failure.type}: {failed.failure.message}", f"more: driftline why {record.id}"]
    if found["rows"] is not None:
        versions = ", ".join(str(version) for version in found["model_versions"])
        lines += [
            f"{found['rows']} predictions by version {versions}, mean {found['mean_prediction']:.4f}",
            f"{found['days_scored']} days scored, {found['days_kept']} kept from earlier runs",
            f"inference log: {found['inference_log']}",
            f"predictions: {found['predictions']}",
        ]
        if found["rows_unanswered"]:
            lines.append(
                f"{found['rows_unanswered']} rows have no prediction: refused, or newer than their day's scoring"
            )
        if found["example"]:
            lines.append(f"next: driftline lineage {found['example']!r} --use-case {record.use_case}")
    return "\n".join(lines)


def as_json_document(settings: Settings, record: RunRecord) -> dict[str, Any]:
    """Describe a scoring run for programs; figures are None when it did not score."""
    measured = metrics(record, "score")
    output = artifact(record, "score", "predictions")
    counts = ("rows", "rows_unanswered", "days_scored", "days_kept")
    versions, example = _look_into(output) if output and measured else ([], "")
    return {
        **outline(record),
        **{name: int(measured[name]) if measured else None for name in counts},
        "mean_prediction": measured.get("mean_prediction"),
        "model_versions": versions,
        "inference_log": str(settings.predictions / record.use_case),
        "predictions": str(output) if output and measured else None,
        "example": example,
    }


def _look_into(path: Any) -> tuple[list[int], str]:
    """Return the model versions of a predictions file and the request id of its last row."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    ids = table.column_names[: table.column_names.index("event_timestamp")]
    last = table.slice(max(0, table.num_rows - 1)).select(ids).to_pylist()
    example = " ".join(str(value) for row in last for value in row.values())
    return sorted(set(table.column("model_version").to_pylist())), example
