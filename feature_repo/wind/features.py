"""Feature views of the wind use case: what a station and its neighbours measured until now.

A source's path is the name of a table in `tables/`; which files that means is decided by the run's snapshot.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

OWNER = "airfield-operations"
# Readings come every hour; a gap of two is bridged, after that a value says nothing about the next three hours.
TTL = timedelta(hours=3)

station = Entity(name="station", value_type=ValueType.STRING, description="Weather station, FAA code of its airport")


def view(table: str, features: list[str]) -> FeatureView:
    """Describe one table of numbers per station."""
    return FeatureView(
        name=table,
        entities=[station],
        ttl=TTL,
        schema=[Field(name=station.name, dtype=String), *(Field(name=feature, dtype=Float64) for feature in features)],
        source=FileSource(
            name=table,
            path=table,
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        owner=OWNER,
    )


station_hours = view(
    "station_hours",
    [
        "wind_mph",
        "eastward_mph",
        "northward_mph",
        "temp_f",
        "humidity_pct",
        "precip_in",
        "pressure_mbar",
        "dew_point_spread_f",
    ],
)
station_trends = view(
    "station_trends",
    [
        "wind_mean_3h_mph",
        "wind_mean_6h_mph",
        "wind_mean_24h_mph",
        "wind_max_6h_mph",
        "wind_change_1h_mph",
        "wind_change_3h_mph",
        "wind_ago_21h_mph",
        "temp_change_3h_f",
        "pressure_change_3h_mbar",
        "pressure_change_12h_mbar",
    ],
)
neighbours = view("neighbours", ["neighbour_wind_mph", "neighbour_wind_max_mph", "neighbour_pressure_mbar"])

wind_v1 = FeatureService(
    name="wind_v1",
    features=[station_hours, station_trends, neighbours],
    owner=OWNER,
    tags={"use_case": "wind", "horizon": "180min"},
)
