-- One row per scheduled flight with the instants at which its facts became known.
-- time_hour is the UTC hour of the local scheduled departure. Scheduled arrival is local clock time at the
-- destination: its first occurrence after departure. Four Caribbean airports are not in `airports`.
WITH scheduled AS (
  SELECT f.*, time_hour + to_minutes(f.minute) AS sched_dep,
    coalesce(a.tzone, 'America/Puerto_Rico') AS zone,
    to_minutes((sched_arr_time // 100) * 60 + sched_arr_time % 100) AS arr_clock
  FROM flights f LEFT JOIN airports a ON a.faa = f.dest
), arrivals AS (
  SELECT *, timezone(zone, date_trunc('day', timezone(zone, sched_dep)) + arr_clock) AS same_day,
    timezone(zone, date_trunc('day', timezone(zone, sched_dep)) + INTERVAL 1 DAY + arr_clock) AS next_day
  FROM scheduled
)
SELECT
  concat_ws('-', carrier, flight, origin, dest, strftime(make_date(year, month, day), '%Y%m%d'), sched_dep_time) AS flight_id,
  carrier, origin, dest, coalesce(tailnum, 'none') AS tailnum, distance, hour * 60 + minute AS local_minute,
  isodow(make_date(year, month, day)) AS day_of_week, sched_dep,
  coalesce(sched_dep + to_minutes(dep_delay), sched_dep + INTERVAL 2 HOUR) AS dep_known,
  dep_delay, (dep_delay IS NULL OR dep_delay >= 15)::INT AS dep_late,
  CASE WHEN same_day > sched_dep THEN same_day ELSE next_day END + to_minutes(arr_delay) AS arr_known,
  arr_delay, (arr_delay >= 15)::INT AS arr_late
FROM arrivals
