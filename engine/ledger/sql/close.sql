-- Closes the books at p_at, or at the last full hour. Returns how many accounts got a closing. NULL: somebody had been posting for
-- more than five seconds, and nothing is closed. A repeat returns 0. Payments never wait for it.
CREATE OR REPLACE FUNCTION ledger.close(p_at timestamptz DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    v_at timestamptz := coalesce(p_at, date_trunc('hour', clock_timestamp() - interval '15 minutes'));
    v_mine xid8;
    v_seq bigint;
    v_count integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'closing must see what the others have committed' USING ERRCODE = 'LD001';
    END IF;
    IF v_at > clock_timestamp() - interval '15 minutes' THEN
        RAISE 'too early to close at %', v_at USING ERRCODE = 'LD001';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ledger.closings'));
    IF v_at <= (SELECT max(at) FROM ledger.closing_times) THEN RETURN 0; END IF;
    -- Who has begun to write may have posted before v_at and not committed yet; who begins from now on posts after it.
    v_mine := pg_current_xact_id();
    FOR v_try IN 0..200 LOOP
        EXIT WHEN pg_snapshot_xmin(pg_current_snapshot()) >= v_mine;
        IF v_try = 200 THEN RETURN NULL; END IF;
        PERFORM pg_sleep(0.025);
    END LOOP;
    SELECT coalesce(max(last_seq), 0) INTO v_seq FROM ledger.closing_times;
    PERFORM set_config('ledger.posting', 'on', true);
    INSERT INTO ledger.closing_times (at, last_seq)
        SELECT v_at, coalesce(max(seq), v_seq) FROM ledger.entries WHERE seq > v_seq AND posted_at <= v_at;
    INSERT INTO ledger.closings (account_id, at, settled, held)
        SELECT m.account_id, v_at, coalesce(c.settled, 0) + e.settled, coalesce(c.held, 0) + e.held
          FROM (SELECT DISTINCT account_id FROM ledger.entries WHERE seq > v_seq) m
          LEFT JOIN LATERAL (SELECT l.at, l.settled, l.held FROM ledger.closings l
                              WHERE l.account_id = m.account_id ORDER BY l.at DESC LIMIT 1) c ON true
          CROSS JOIN LATERAL (SELECT coalesce(sum(n.amount) FILTER (WHERE n.layer = 0), 0) AS settled,
                                     coalesce(sum(n.amount) FILTER (WHERE n.layer = 1), 0) AS held, count(*) AS entries
                                FROM ledger.entries n WHERE n.account_id = m.account_id
                                 AND n.posted_at > coalesce(c.at, '-infinity') AND n.posted_at <= v_at) e
         WHERE e.entries >= 100;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM set_config('ledger.posting', 'off', true);
    RETURN v_count;
END $$;
