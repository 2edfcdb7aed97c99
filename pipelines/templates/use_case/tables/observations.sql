-- What was measured, at the instant it became known: the end of the hour.
SELECT origin AS station, time_hour + INTERVAL 1 HOUR AS event_timestamp,
  humid AS humidity_pct, pressure AS pressure_mbar, precip AS precip_in,
  pressure - lag(pressure, 3) OVER (PARTITION BY origin ORDER BY time_hour) AS pressure_change_3h_mbar
FROM hourly
