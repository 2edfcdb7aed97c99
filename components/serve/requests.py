"""The shape of requests and responses, derived from the serving description.

Every field is required and may be null: a forgotten field is an error, not silently missing data.
"""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, create_model

from components.core.serving import ServingSpec
from components.core.training_set import Input

FLOAT32_MAX = 3.4028234663852886e38
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

Text = Annotated[str, Field(max_length=1024)]
# NaN and infinity are not JSON; a double beyond float32 would become infinite in the graph.
Number = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]
_ENTITY: dict[str, Any] = {
    "string": Text,
    "int32": Annotated[int, Field(ge=-(2**31), le=2**31 - 1)],
    "int64": Annotated[int, Field(ge=-(2**63), le=2**63 - 1)],
}


class Prediction(BaseModel):
    """One prediction and how it came about."""

    model_config = ConfigDict(protected_namespaces=())

    prediction: float
    model_version: int
    model: str
    request_id: str


class OnlinePrediction(Prediction):
    """A prediction from online features."""

    feature_ages_seconds: dict[str, float | None]
    """Feature view to the age of its row at `as_of`; null when it has no row."""
    stale: list[str]
    """Features older than their TTL; the model saw them as missing."""
    missing: list[str]
    """Features without a value."""


class BatchPrediction(BaseModel):
    """Predictions in the order of the rows."""

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[float]
    model_version: int
    model: str
    request_id: str


def online_request(spec: ServingSpec) -> type[BaseModel]:
    """Return the model of a request with entity keys, request inputs and an optional instant."""
    fields: dict[str, Any] = {name: (_ENTITY[kind] | None, ...) for name, kind in spec.entities.items()}
    for column in spec.inputs:
        if not column.view and column.name not in fields:
            fields[column.name] = (_kind(column), ...)
    fields["as_of"] = (AwareDatetime | None, Field(default=None, description="Prediction instant; null: now."))
    return create_model("OnlineRequest", __config__=_STRICT, **fields)


def ready_row(spec: ServingSpec) -> type[BaseModel]:
    """Return the model of a row that brings every model input."""
    fields: dict[str, Any] = {column.name: (_kind(column), ...) for column in spec.inputs}
    return create_model("ReadyRow", __config__=_STRICT, **fields)


def ready_batch(spec: ServingSpec, row: type[BaseModel]) -> type[BaseModel]:
    """Return the model of a bounded list of ready rows; validation stops at the first bad row."""
    # FailFast: a megabyte of bad rows must not be answered with many megabytes of errors.
    rows = Annotated[list[row], FailFast(), Field(min_length=1, max_length=spec.max_batch_rows)]  # type: ignore[valid-type]
    return create_model("ReadyBatch", __config__=_STRICT, rows=(rows, ...))


def _kind(column: Input) -> Any:
    return (Number if column.kind == "number" else Text) | None
