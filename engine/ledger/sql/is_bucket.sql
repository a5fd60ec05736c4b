-- The CHECK of ledger.counters, as a function for the reason given in is_well_formed.sql.
CREATE OR REPLACE FUNCTION ledger.is_bucket(p_window_s int, p_bucket timestamptz) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN p_window_s = ANY (ledger.counted_windows()) AND p_bucket = ledger.counter_bucket(p_window_s, p_bucket);
END $$;
