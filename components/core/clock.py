"""Instants: always timezone-aware UTC, with microseconds at most."""

from datetime import UTC, datetime

from components.core.errors import ConfigError


def parse_instant(text: str, *, what: str = "as_of") -> datetime:
    """Parse an ISO 8601 date or instant; the empty text means now, no offset means UTC.

    Raises ConfigError when the text is not ISO 8601.
    """
    if not text:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{what} is not an ISO 8601 date or instant",
            measured=repr(text),
            allowed="2013-04-01 or 2013-04-01T06:00:00+00:00",
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
