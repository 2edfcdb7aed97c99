-- One row per station and hour; `known` is the end of the hour. A wind of more than 150 mph is a sensor error (the
-- source has one reading of 1,048 mph) and counts as missing.
SELECT origin AS station, time_hour + INTERVAL 1 HOUR AS known,
  CASE WHEN wind_speed BETWEEN 0 AND 150 THEN wind_speed END AS wind_mph,
  -- Wind blows *from* its direction; calm air and variable wind have none.
  CASE WHEN wind_speed BETWEEN 0 AND 150 THEN -wind_speed * sin(radians(wind_dir)) END AS eastward_mph,
  CASE WHEN wind_speed BETWEEN 0 AND 150 THEN -wind_speed * cos(radians(wind_dir)) END AS northward_mph,
  temp AS temp_f, dewp AS dew_point_f, humid AS humidity_pct, precip AS precip_in, pressure AS pressure_mbar
FROM hourly_weather
