-- Writes a line of the audit trail. Numbers have no gaps and follow the commits: the writer holds the lock until its
-- transaction ends.
CREATE OR REPLACE FUNCTION bank.record_act(p_operator text, p_key_id text, p_action text, p_account text, p_subject text, p_detail jsonb)
    RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE v_id bigint; v_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('bank.audit'));
    SELECT coalesce(max(id), 0) + 1, greatest(max(at), clock_timestamp()) INTO v_id, v_at FROM bank.audit;
    INSERT INTO bank.audit(id, at, operator, key_id, action, account_id, subject, detail)
        VALUES (v_id, v_at, p_operator, p_key_id, p_action, p_account, p_subject, p_detail);
    RETURN v_id;
END $$;
