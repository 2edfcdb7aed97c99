-- Arrivals of an aircraft.
SELECT DISTINCT tailnum, arr_known AS event_timestamp,
  (max(arr_delay) OVER this)::DOUBLE AS tail_last_delay, avg(arr_delay) OVER d7 AS tail_delay_7d,
  (count(*) OVER d7)::DOUBLE AS tail_flights_7d
FROM flight_times WHERE arr_known IS NOT NULL AND tailnum <> 'none'
WINDOW this AS (PARTITION BY tailnum ORDER BY arr_known RANGE BETWEEN CURRENT ROW AND CURRENT ROW),
  d7 AS (PARTITION BY tailnum ORDER BY arr_known RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW)
