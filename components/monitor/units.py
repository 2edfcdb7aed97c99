"""Conversions between units that are well known to be mixed up."""

from typing import NamedTuple

import numpy as np

from components.core.metrics import Floats


class Conversion(NamedTuple):
    """new = factor * old + offset."""

    name: str
    factor: float
    offset: float = 0.0


# A factor that belongs to several pairs is named once.
_SCALES = (
    ("mph (mi)", "km/h (km)", 1.609344),
    ("mph", "m/s", 0.44704),
    ("kn", "mph", 1.150779),
    ("kn (NM)", "km/h (km)", 1.852),
    ("kn", "m/s", 0.514444),
    ("m/s", "km/h", 3.6),
    ("in", "mm", 25.4),
    ("ft", "m", 0.3048),
    ("inHg", "hPa", 33.8639),
    ("kg", "lb", 2.204623),
    ("min (h)", "s (min)", 60.0),
    ("h", "s", 3600.0),
    ("fraction", "percent", 100.0),
    ("difference in °C", "difference in °F", 1.8),
)


def _conversions() -> tuple[Conversion, ...]:
    found = [
        Conversion("°F → °C", 5 / 9, -160 / 9),
        Conversion("°C → °F", 1.8, 32.0),
        Conversion("°C → K", 1.0, 273.15),
        Conversion("K → °C", 1.0, -273.15),
        Conversion("°F → K", 5 / 9, 273.15 - 160 / 9),
    ]
    for old, new, factor in _SCALES:
        found += [Conversion(f"{old} → {new}", factor), Conversion(f"{new} → {old}", 1 / factor)]
    return tuple(found)


CONVERSIONS = _conversions()


def undo(conversion: Conversion, values: Floats) -> Floats:
    """Turn values that were converted back into the old unit."""
    return (values - conversion.offset) / conversion.factor


def key(values: Floats) -> Floats:
    """Number values so that equal numbers mean equal to about five digits: what a conversion there and back keeps."""
    mantissa, exponent = np.frexp(values)
    # Plus zero turns the negative zero of a rounded conversion into zero.
    return np.asarray(np.rint(mantissa * 2.0**17) + exponent * 2.0**19 + 0.0, dtype=np.float64)
