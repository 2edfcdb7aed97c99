-- What the other stations measured in the same hour: a front reaches one airport before the next.
SELECT here.station, here.known AS event_timestamp,
  avg(there.wind_mph) AS neighbour_wind_mph,
  max(there.wind_mph) AS neighbour_wind_max_mph,
  avg(there.pressure_mbar) AS neighbour_pressure_mbar
FROM readings AS here
JOIN readings AS there ON there.known = here.known AND there.station <> here.station
GROUP BY here.station, here.known
