-- Buckets that begin later than this have something within the window that ends now.
CREATE OR REPLACE FUNCTION ledger.window_begin(p_window_s int, p_now timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN p_now - make_interval(secs => p_window_s + p_window_s / 96);
