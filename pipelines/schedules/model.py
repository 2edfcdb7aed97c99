"""Schedules: what a file declares, what is wanted of the server, and what the server has."""

import json
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from components.core.digests import canonical_json, json_digest, text_digest
from components.core.sections import Name, Section
from pipelines.schedules.cron import next_after, parse_cron

MANAGED_BY = "driftline"
MAX_NAME = 63
MAX_DESCRIPTION = 120
"""The marker needs the rest of the 255 characters that KFP's database takes."""
DIGEST_DIGITS = 16

ScheduleName = Annotated[str, Field(pattern=rf"^[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}}$")]


class Schedule(Section):
    """One file below `infra/usecases/<use case>/schedules/`: when a pipeline of a use case runs by itself."""

    name: ScheduleName
    """Unique among all files; the recurring run's name in the KFP UI."""
    use_case: Name
    pipeline: Literal["training", "scoring", "monitoring"]
    description: str = Field("", max_length=MAX_DESCRIPTION, pattern=r"^[^\n]*$")
    """One sentence for the KFP UI."""
    cron: str
    """Six fields in UTC, seconds first, such as `0 30 6 * * MON`; or @hourly, @daily, @weekly, @monthly, @yearly."""
    parameters: dict[str, Any] = Field(default={})
    """What differs from the version's defaults: SECTION.KEY, or a parameter such as `as_of`, to its value."""
    enabled: bool = True
    max_concurrency: int = Field(1, ge=1, le=10)
    """So many runs of this schedule at a time."""
    catchup: bool = False
    """Whether ticks that were missed, since the controller was down or runs took long, start one by one; else only the
    newest of them."""
    starts: datetime | None = None
    """No tick before it. One that is past has no effect: nothing is run for the past."""
    ends: datetime | None = None
    version: str = ""
    """Name of a pipeline version on the server; empty: the one that this checkout compiles to."""

    @field_validator("cron")
    @classmethod
    def _readable(cls, cron: str) -> str:
        parse_cron(cron)
        return " ".join(cron.split())

    @field_validator("starts", "ends", mode="before")
    @classmethod
    def _instant(cls, value: Any) -> Any:
        # YAML reads an unquoted day as a date and an unquoted instant as one without offset, in UTC.
        if isinstance(value, int | float):
            raise ValueError("not an ISO 8601 date or instant")  # noqa: TRY004, pydantic collects ValueErrors
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        return value

    @field_validator("starts", "ends")
    @classmethod
    def _utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        whole = value.replace(microsecond=0)
        return whole.replace(tzinfo=UTC) if whole.tzinfo is None else whole.astimezone(UTC)

    @model_validator(mode="after")
    def _fires_between(self) -> "Schedule":
        if self.starts and self.ends:
            first = next_after(parse_cron(self.cron), self.starts)
            if first is None or first > self.ends:
                raise ValueError(f"no tick of {self.cron!r} lies between starts and ends")
        return self


class Spec(Section):
    """Everything about a schedule that only a new recurring run can change."""

    use_case: str
    pipeline: str
    """Name of the pipeline on the server."""
    version: str
    """Name of the pipeline version; never "the newest", which a `git revert` would not bring back."""
    cron: str
    description: str = ""
    parameters: dict[str, Any] = Field(default={})
    max_concurrency: int = 1
    catchup: bool = False
    starts: str = ""
    ends: str = ""

    def document(self) -> dict[str, Any]:
        """Return what the digest is of; a field that a later release adds does not change it while it is unset."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def digest(self) -> str:
        return json_digest(self.document())[:DIGEST_DIGITS]


class Wanted(BaseModel):
    """A schedule whose version is known."""

    model_config = ConfigDict(frozen=True)

    name: str
    enabled: bool
    spec: Spec
    arguments: dict[str, Any]
    """What KFP is given: whole sections with their overridden keys."""


class Existing(BaseModel):
    """A recurring run that this command made."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    enabled: bool
    created_at: datetime
    digest: str
    """Of the spec that it was made for."""
    replaces: str = ""
    """Id of the recurring run from which it takes over."""
    has: dict[str, Any] = {}
    """What the server says of it, under the names of `Spec`; `parameters` are whole sections."""


def marker(wanted: Wanted, replaces: str) -> str:
    """Return the description of a recurring run: a sentence for people, then a line by which it is known again."""
    document = {
        "managed-by": MANAGED_BY,
        "schedule": _key(wanted.name),
        "spec": wanted.spec.digest,
        "replaces": replaces,
    }
    title = wanted.spec.description or f"{wanted.spec.pipeline} on schedule"
    return f"{title}\n{canonical_json(document)}"


def read_marker(description: str, **known: Any) -> Existing | None:
    """Return a recurring run if its description has the marker; `known` is what else `Existing` holds.

    None for one that somebody else made. A copy that a person makes in the UI has the same description and another
    name: it is his.
    """
    try:
        document = json.loads((description or "").rpartition("\n")[2])
        if document["managed-by"] != MANAGED_BY or document["schedule"] != _key(known["name"]):
            return None
        return Existing(digest=document["spec"], replaces=document["replaces"], **known)
    except (ValueError, KeyError, TypeError):
        return None


def _key(name: str) -> str:
    return text_digest(name)[:8]
