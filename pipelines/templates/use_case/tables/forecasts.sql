-- One row per prediction. event_timestamp: when it is made; label_timestamp: when the truth is known.
WITH hours AS (
  SELECT origin AS station, time_hour + INTERVAL 1 HOUR AS known, precip FROM hourly
), outcome AS (
  SELECT now.station, now.known, max(later.precip > 0)::DOUBLE AS rain, count(later.precip) AS hours
  FROM hours now LEFT JOIN hours later
    ON later.station = now.station AND later.known > now.known AND later.known <= now.known + INTERVAL 3 HOURS
  GROUP BY ALL
)
SELECT concat_ws('-', station, strftime(known, '%Y%m%dT%H')) AS forecast_id, station,
  known AS event_timestamp, CASE WHEN hours = 3 THEN known + INTERVAL 3 HOURS END AS label_timestamp,
  date_part('hour', known)::DOUBLE AS hour_of_day, date_part('month', known)::DOUBLE AS month,
  CASE WHEN hours = 3 THEN rain END AS rain
FROM outcome
