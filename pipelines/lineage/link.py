"""One step of a lineage, and whether it was checked."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Link(BaseModel):
    """What something was made from."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    """A digest, version or id; empty where it is unknown."""
    state: Literal["verified", "unverified", "broken"]
    """verified: computed again and equal. unverified: what it needs is not here. broken: gone or not equal."""
    note: str
    details: dict[str, Any] = {}


def verified(name: str, value: object, note: str, **details: Any) -> Link:
    return Link(name=name, value=str(value), state="verified", note=note, details=details)


def unverified(name: str, value: object, note: str, **details: Any) -> Link:
    return Link(name=name, value=str(value), state="unverified", note=note, details=details)


def broken(name: str, value: object, note: str, **details: Any) -> Link:
    return Link(name=name, value=str(value), state="broken", note=note, details=details)


def compared(name: str, value: object, found: object, note: str, **details: Any) -> Link:
    """Return a verified link if what was found is what is recorded, else a broken one that shows both."""
    if found == value:
        return verified(name, value, note, **details)
    return broken(name, value, f"{note}: found {found}", **details)
