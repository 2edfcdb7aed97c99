-- One row per prediction: two hours before scheduled departure, will the flight arrive 15 minutes late or more?
SELECT flight_id, carrier, origin, dest, tailnum,
  sched_dep - INTERVAL 2 HOUR AS event_timestamp, arr_known AS label_timestamp,
  local_minute::DOUBLE AS local_minute, day_of_week::DOUBLE AS day_of_week, distance::DOUBLE AS distance_mi,
  arr_late::DOUBLE AS is_late
FROM flight_times
