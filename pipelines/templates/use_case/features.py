"""Feature definitions of $name. `driftline features apply --use-case $name` puts them into the registry."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)

observations = FeatureView(
    name="observations",
    entities=[station],
    ttl=timedelta(hours=3),
    schema=[
        Field(name="station", dtype=String),
        Field(name="humidity_pct", dtype=Float64),
        Field(name="pressure_mbar", dtype=Float64),
        Field(name="precip_in", dtype=Float64),
        Field(name="pressure_change_3h_mbar", dtype=Float64),
    ],
    # The path is the name of the table that tables/observations.sql fills.
    source=FileSource(
        path="observations", timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
    ),
)

service = FeatureService(name="${name}_v1", features=[observations], owner="$owner")
