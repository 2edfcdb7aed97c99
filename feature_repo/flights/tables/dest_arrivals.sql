-- Arrivals at a destination.
SELECT DISTINCT dest, arr_known AS event_timestamp,
  avg(arr_delay) OVER h3 AS dest_delay_3h, avg(arr_late) OVER h3 AS dest_late_share_3h,
  avg(arr_late) OVER h6 AS dest_late_share_6h
FROM flight_times WHERE arr_known IS NOT NULL
WINDOW h3 AS (PARTITION BY dest ORDER BY arr_known RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW),
  h6 AS (PARTITION BY dest ORDER BY arr_known RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW)
