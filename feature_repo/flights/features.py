"""Feature views of the flights use case: what is known about traffic, weather and aircraft two hours before departure.

A source's path is the name of a table in `tables/`; which files that means is decided by the run's snapshot.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

OWNER = "flight-operations"

carrier = Entity(name="carrier", value_type=ValueType.STRING, description="Airline, two-letter code")
origin = Entity(name="origin", value_type=ValueType.STRING, description="Departure airport, FAA code")
dest = Entity(name="dest", value_type=ValueType.STRING, description="Arrival airport, FAA code")
tailnum = Entity(name="tailnum", value_type=ValueType.STRING, description="Aircraft registration")


def view(table: str, entities: list[Entity], ttl: timedelta, features: list[str]) -> FeatureView:
    """Describe one table of numbers; `ttl` is the greatest age at which a value still counts."""
    keys = [Field(name=entity.name, dtype=String) for entity in entities]
    return FeatureView(
        name=table,
        entities=entities,
        ttl=ttl,
        schema=[*keys, *(Field(name=feature, dtype=Float64) for feature in features)],
        source=FileSource(
            name=table,
            path=table,
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        owner=OWNER,
    )


origin_departures = view(
    "origin_departures",
    [origin],
    timedelta(hours=6),
    ["origin_flights_1h", "origin_late_share_1h", "origin_late_share_3h", "origin_delay_3h", "origin_late_share_6h"],
)
carrier_departures = view(
    "carrier_departures",
    [carrier, origin],
    timedelta(hours=24),
    ["carrier_late_share_3h", "carrier_delay_3h", "carrier_late_share_24h", "carrier_delay_24h"],
)
route_arrivals = view(
    "route_arrivals",
    [origin, dest],
    timedelta(days=7),
    ["route_delay_24h", "route_late_share_24h", "route_late_share_7d"],
)
dest_arrivals = view(
    "dest_arrivals",
    [dest],
    timedelta(hours=6),
    ["dest_delay_3h", "dest_late_share_3h", "dest_late_share_6h"],
)
tail_arrivals = view(
    "tail_arrivals",
    [tailnum],
    timedelta(days=7),
    ["tail_last_delay", "tail_delay_7d", "tail_flights_7d"],
)
weather = view(
    "weather",
    [origin],
    timedelta(hours=3),
    [
        "temp_f",
        "dew_point_f",
        "humidity_pct",
        "wind_dir_deg",
        "wind_speed_mph",
        "precip_in",
        "pressure_mbar",
        "visibility_mi",
    ],
)
# The register does not age.
planes = view("planes", [tailnum], timedelta(0), ["plane_year", "plane_seats", "plane_engines"])

flights_v1 = FeatureService(
    name="flights_v1",
    features=[
        origin_departures,
        carrier_departures,
        route_arrivals,
        dest_arrivals,
        tail_arrivals,
        weather,
        planes,
    ],
    owner=OWNER,
    tags={"use_case": "flights", "horizon": "120min"},
)
