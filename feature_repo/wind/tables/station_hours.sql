-- What the station measured in the hour that just ended.
SELECT station, known AS event_timestamp,
  wind_mph, eastward_mph, northward_mph, temp_f, humidity_pct, precip_in, pressure_mbar,
  temp_f - dew_point_f AS dew_point_spread_f
FROM readings
