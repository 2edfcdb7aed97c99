-- Arrivals on a route.
SELECT DISTINCT origin, dest, arr_known AS event_timestamp,
  avg(arr_delay) OVER h24 AS route_delay_24h, avg(arr_late) OVER h24 AS route_late_share_24h,
  avg(arr_late) OVER d7 AS route_late_share_7d
FROM flight_times WHERE arr_known IS NOT NULL
WINDOW h24 AS (PARTITION BY origin, dest ORDER BY arr_known RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW),
  d7 AS (PARTITION BY origin, dest ORDER BY arr_known RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW)
