"""Finding predictions in the inference log by their request's id."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, DataError
from components.core.inference_log import INPUT, KEY

log = logging.getLogger(__name__)


class Logged(BaseModel):
    """One row of the inference log."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    use_case: str
    file: Path
    fields: dict[str, Any]
    """Every column but inputs and keys."""
    inputs: dict[str, Any]
    """As the model saw them."""
    keys: dict[str, Any]

    @property
    def model(self) -> tuple[str, int, str]:
        """Use case, version and digest of the model that answered."""
        return self.use_case, self.fields["model_version"], self.fields["model"]


def find_predictions(root: Path, request_id: str, use_case: str = "") -> list[Logged]:
    """Return all predictions of a request, the newest day first.

    An id may occur on several days and in several model versions. A damaged file is reported and passed over.
    Raises ConfigError for a use case without a log, DataError for an unknown id.
    """
    known = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if use_case and use_case not in known:
        raise ConfigError(f"{use_case} has no inference log", measured=root / use_case, allowed=", ".join(known))
    files = [file for name in ([use_case] if use_case else known) for file in (root / name).glob("*/[!.]*.parquet")]
    files.sort(key=lambda file: (file.parent.name, file.name), reverse=True)
    found = [row for file in files for row in _read(file, request_id)]
    if not found:
        raise DataError(
            "no prediction has this id",
            measured=request_id,
            allowed=f"a request id in {len(files)} files below {root}",
            next_step="the id of an answer is its field request_id; of a scored row, its id columns joined by a space",
        )
    return found


def _read(file: Path, request_id: str) -> list[Logged]:
    try:
        parquet = pq.ParquetFile(file)
        groups = [n for n in range(parquet.num_row_groups) if _may_hold(parquet.metadata.row_group(n), request_id)]
        rows = []
        for group in groups:
            hits = pc.equal(parquet.read_row_group(group, columns=["request_id"]).column(0), request_id)
            if pc.any(hits).as_py():
                rows += parquet.read_row_group(group).filter(hits).to_pylist()
    except (OSError, pa.ArrowException) as error:
        log.warning("%s cannot be read: %s", file, error)
        return []
    return [_logged(file, row) for row in rows]


def _may_hold(group: Any, request_id: str) -> bool:
    """Compare with the smallest and the largest id of a row group, if the file says."""
    columns = [group.column(number) for number in range(group.num_columns)]
    statistics = next((column.statistics for column in columns if column.path_in_schema == "request_id"), None)
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= request_id <= statistics.max)


def _logged(file: Path, row: dict[str, Any]) -> Logged:
    prefixed = (INPUT, KEY)
    return Logged(
        use_case=file.parent.parent.name,
        file=file,
        fields={name: value for name, value in row.items() if not name.startswith(prefixed)},
        inputs={name.removeprefix(INPUT): value for name, value in row.items() if name.startswith(INPUT)},
        keys={name.removeprefix(KEY): value for name, value in row.items() if name.startswith(KEY)},
    )
