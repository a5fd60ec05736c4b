-- Deletes up to p_most buckets of each window and returns how many. It waits for nobody: a bucket in use stays until the next
-- call.
CREATE OR REPLACE FUNCTION ledger.prune_counters(p_most int) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_window int; v_gone bigint; v_all bigint := 0;
BEGIN
    PERFORM set_config('ledger.posting', 'pruning', true);
    FOREACH v_window IN ARRAY ledger.counted_windows() LOOP
        DELETE FROM ledger.counters WHERE ctid = ANY (ARRAY(
            SELECT c.ctid FROM ledger.counters c WHERE c.window_s = v_window AND c.bucket < v_now - make_interval(secs => 2 * v_window)
             ORDER BY c.bucket LIMIT p_most FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_gone = ROW_COUNT;
        v_all := v_all + v_gone;
    END LOOP;
    PERFORM set_config('ledger.posting', 'off', true);
    RETURN v_all;
END $$;
