-- Departures of an airport up to each departure (or cancellation) that became known.
SELECT DISTINCT origin, dep_known AS event_timestamp,
  (count(*) OVER h1)::DOUBLE AS origin_flights_1h, avg(dep_late) OVER h1 AS origin_late_share_1h,
  avg(dep_late) OVER h3 AS origin_late_share_3h, avg(dep_delay) OVER h3 AS origin_delay_3h,
  avg(dep_late) OVER h6 AS origin_late_share_6h
FROM flight_times
WINDOW h1 AS (PARTITION BY origin ORDER BY dep_known RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  h3 AS (PARTITION BY origin ORDER BY dep_known RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW),
  h6 AS (PARTITION BY origin ORDER BY dep_known RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW)
