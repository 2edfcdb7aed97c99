-- One row per prediction: at the end of each hour, the wind speed of the hour that ends three hours later.
SELECT
  now.station || '-' || strftime(now.known, '%Y%m%dT%H') AS forecast_id,
  now.station,
  now.known AS event_timestamp,
  CASE WHEN later.wind_mph IS NOT NULL THEN later.known END AS label_timestamp,
  hour(timezone('America/New_York', now.known))::DOUBLE AS local_hour,
  later.wind_mph AS wind_in_3h_mph
FROM readings AS now
LEFT JOIN readings AS later ON later.station = now.station AND later.known = now.known + INTERVAL 3 HOUR
