"""The SQL of point-in-time reads: which rows of a view count, and which of them wins."""

# ruff: noqa: S608  Names are quoted by `name`, instants are integers: no text from outside is spliced in.

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ROW = "__row"
INSTANT = "__instant"
KNOWN = "__known"


class View(BaseModel):
    """A table of timestamped rows and what is wanted from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    files: list[Path]
    keys: dict[str, str]
    """Key column to the column of the entity rows that it equals."""
    columns: dict[str, str]
    """Value column to its name in the result."""
    timestamp: str = "event_timestamp"
    created: str = ""
    """Column that orders rows of one instant; empty: none."""
    ttl: timedelta = timedelta(0)
    """Greatest age of a value, inclusive; 0: no limit."""

    @property
    def stored(self) -> list[str]:
        """All columns to read, each once."""
        created = [self.created] if self.created else []
        return list(dict.fromkeys([*self.keys, *self.columns, self.timestamp, *created]))


def name(column: str) -> str:
    """Quote an identifier."""
    return '"' + column.replace('"', '""') + '"'


def names(columns: Iterable[str]) -> str:
    return ", ".join(name(column) for column in columns)


def rows_within(view: View, start: datetime | None, end: datetime | None) -> str:
    """Select the rows within [start, end]; None is unbounded. A row without a key matches nothing and is left out."""
    files = ", ".join("'" + str(file).replace("'", "''") + "'" for file in view.files)
    where = [f"{name(key)} IS NOT NULL" for key in view.keys]
    if start is not None:
        where.append(f"{name(view.timestamp)} >= make_timestamptz({(start - EPOCH) // MICROSECOND})")
    if end is not None:
        where.append(f"{name(view.timestamp)} <= make_timestamptz({(end - EPOCH) // MICROSECOND})")
    return f"SELECT {names(view.stored)} FROM read_parquet([{files}]) WHERE {' AND '.join(where) or 'true'}"


def ties(view: View, source: str) -> str:
    """Select something if two rows share keys and instant. This costs a tenth of ranking every row."""
    return f"SELECT 1 FROM ({source}) GROUP BY {names([*view.keys, view.timestamp])} HAVING count(*) > 1 LIMIT 1"


def latest_per_key(view: View, source: str) -> str:
    """Keep the latest row of each key, ordered by key."""
    order = f"{name(view.timestamp)} DESC, {_tie_break(view)}"
    rank = f"row_number() OVER (PARTITION BY {names(view.keys)} ORDER BY {order})"
    return f"SELECT * FROM ({source}) QUALIFY {rank} = 1 ORDER BY {names(view.keys)}"


def known_rows(view: View, source: str, *, tied: bool) -> str:
    """Add `__known`, the instant from which a row can be seen: here its timestamp; keep one row per key and instant."""
    query = f"SELECT *, {name(view.timestamp)} AS {KNOWN} FROM ({source})"
    if not tied:
        return query
    keys = names([*view.keys, view.timestamp])
    return f"{query} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_tie_break(view)}) = 1"


def known_rows_by_creation(view: View, source: str) -> str:
    """Add `__known` where a row can be seen from its creation on, if that is later than its timestamp.

    Each such instant carries the best row seen until then: a running maximum over (timestamp, created, values).
    """
    keys, timestamp, created = names(view.keys), name(view.timestamp), name(view.created)
    values = ", ".join(f"{name(column)} := {name(column)}" for column in view.columns)
    best = f"max(struct_pack(t := {timestamp}, c := {created}, {values})) OVER (PARTITION BY {keys} ORDER BY {KNOWN})"
    dated = f"SELECT *, greatest({timestamp}, {created}) AS {KNOWN} FROM ({source}) WHERE {created} IS NOT NULL"
    taken = ", ".join(f"best.{name(column)} AS {name(column)}" for column in view.columns)
    seen = f"SELECT {keys}, {KNOWN}, {best} AS best FROM ({dated})"
    rank = f"row_number() OVER (PARTITION BY {keys}, {KNOWN})"
    return f"SELECT {keys}, {KNOWN}, best.t AS {timestamp}, {taken} FROM ({seen}) QUALIFY {rank} = 1"


def asof_join(view: View, known: str) -> str:
    """Join the table `entities` to the row known last; a value older than the TTL becomes null."""
    age = f"epoch_us(e.{INSTANT}) - epoch_us(v.{name(view.timestamp)})"
    fresh = f"{age} <= {view.ttl // MICROSECOND}" if view.ttl else "true"
    values = ", ".join(f"CASE WHEN {fresh} THEN v.{name(c)} END AS {name(out)}" for c, out in view.columns.items())
    equal = "".join(f"e.{name(key)} = v.{name(key)} AND " for key in view.keys)
    condition = f"{equal}e.{INSTANT} >= v.{KNOWN}"
    return f"SELECT e.{ROW}, {values} FROM entities e ASOF LEFT JOIN ({known}) v ON {condition}"


def _tie_break(view: View) -> str:
    """Order rows of one instant: the one created last first, then by value, so that every run chooses the same."""
    created = [f"{name(view.created)} DESC NULLS LAST"] if view.created else []
    return ", ".join([*created, *(f"{name(column)} DESC NULLS LAST" for column in view.columns)])
