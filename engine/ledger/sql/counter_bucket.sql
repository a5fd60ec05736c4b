-- The begin of the bucket of a moment. A window is counted in buckets of a 96th of it.
CREATE OR REPLACE FUNCTION ledger.counter_bucket(p_window_s int, p_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(make_interval(secs => p_window_s / 96), p_at, timestamptz '2000-01-01 00:00:00+00');
