-- Hourly weather; an hour is known when it is over.
SELECT origin, time_hour + INTERVAL 1 HOUR AS event_timestamp,
  temp AS temp_f, dewp AS dew_point_f, humid AS humidity_pct, wind_dir AS wind_dir_deg,
  wind_speed AS wind_speed_mph, precip AS precip_in, pressure AS pressure_mbar, visib AS visibility_mi
FROM hourly_weather
