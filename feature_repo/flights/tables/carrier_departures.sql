-- Departures of a carrier at an airport.
SELECT DISTINCT carrier, origin, dep_known AS event_timestamp,
  avg(dep_late) OVER h3 AS carrier_late_share_3h, avg(dep_delay) OVER h3 AS carrier_delay_3h,
  avg(dep_late) OVER h24 AS carrier_late_share_24h, avg(dep_delay) OVER h24 AS carrier_delay_24h
FROM flight_times
WINDOW h3 AS (PARTITION BY carrier, origin ORDER BY dep_known RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW),
  h24 AS (PARTITION BY carrier, origin ORDER BY dep_known RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW)
