-- The aircraft register, known before the year begins.
SELECT tailnum, TIMESTAMPTZ '2012-12-31 00:00:00+00' AS event_timestamp,
  year::DOUBLE AS plane_year, seats::DOUBLE AS plane_seats, engines::DOUBLE AS plane_engines
FROM aircraft
