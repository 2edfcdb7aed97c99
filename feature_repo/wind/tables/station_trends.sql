-- Rolling means and changes at one station. Windows count time, not rows, so a missing hour does not shift them.
SELECT station, known AS event_timestamp,
  avg(wind_mph) OVER last_3h AS wind_mean_3h_mph,
  avg(wind_mph) OVER last_6h AS wind_mean_6h_mph,
  avg(wind_mph) OVER last_24h AS wind_mean_24h_mph,
  max(wind_mph) OVER last_6h AS wind_max_6h_mph,
  wind_mph - max(wind_mph) OVER ago_1h AS wind_change_1h_mph,
  wind_mph - max(wind_mph) OVER ago_3h AS wind_change_3h_mph,
  max(wind_mph) OVER ago_21h AS wind_ago_21h_mph,
  temp_f - max(temp_f) OVER ago_3h AS temp_change_3h_f,
  pressure_mbar - max(pressure_mbar) OVER ago_3h AS pressure_change_3h_mbar,
  pressure_mbar - max(pressure_mbar) OVER ago_12h AS pressure_change_12h_mbar
FROM readings
WINDOW
  last_3h AS (PARTITION BY station ORDER BY known RANGE BETWEEN INTERVAL 2 HOUR PRECEDING AND CURRENT ROW),
  last_6h AS (PARTITION BY station ORDER BY known RANGE BETWEEN INTERVAL 5 HOUR PRECEDING AND CURRENT ROW),
  last_24h AS (PARTITION BY station ORDER BY known RANGE BETWEEN INTERVAL 23 HOUR PRECEDING AND CURRENT ROW),
  ago_1h AS (PARTITION BY station ORDER BY known
    RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND INTERVAL 1 HOUR PRECEDING),
  ago_3h AS (PARTITION BY station ORDER BY known
    RANGE BETWEEN INTERVAL 3 HOUR PRECEDING AND INTERVAL 3 HOUR PRECEDING),
  ago_12h AS (PARTITION BY station ORDER BY known
    RANGE BETWEEN INTERVAL 12 HOUR PRECEDING AND INTERVAL 12 HOUR PRECEDING),
  -- The hour to be predicted, one day earlier.
  ago_21h AS (PARTITION BY station ORDER BY known
    RANGE BETWEEN INTERVAL 21 HOUR PRECEDING AND INTERVAL 21 HOUR PRECEDING)
