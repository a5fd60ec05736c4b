-- Settle, void or expire: resolves each hold once, whoever races, and returns their ids.
CREATE OR REPLACE FUNCTION ledger.resolve_holds(p_transfer bigint, p_phase text, p_refs text[], p_accounts bigint[], p_amounts bigint[])
    RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v record; v_taken int;
BEGIN
    SELECT array_agg(t.id ORDER BY t.id) AS ids, count(*) AS n, min(t.expires_at) AS first_expiry,
           max(coalesce(t.expires_at, 'infinity')) AS last_expiry
      INTO v FROM ledger.transfers t WHERE t.external_ref = ANY (p_refs) AND t.phase = 'hold';
    IF v.n <> cardinality(p_refs) THEN
        RAISE 'no such hold among %', p_refs USING ERRCODE = 'LD404';
    END IF;
    INSERT INTO ledger.resolutions (target_id, transfer_id) SELECT h, p_transfer FROM unnest(v.ids) h ON CONFLICT (target_id) DO NOTHING;
    GET DIAGNOSTICS v_taken = ROW_COUNT;
    IF v_taken <> v.n THEN
        RAISE 'hold already resolved' USING ERRCODE = 'LD410', DETAIL = (
            SELECT jsonb_build_object('hold', h.external_ref, 'resolved_by', t.external_ref, 'phase', t.phase)::text
              FROM ledger.resolutions r JOIN ledger.transfers h ON h.id = r.target_id JOIN ledger.transfers t ON t.id = r.transfer_id
             WHERE r.target_id = ANY (v.ids) AND r.transfer_id <> p_transfer ORDER BY h.id LIMIT 1);
    END IF;
    IF p_phase = 'expire' AND v.last_expiry > clock_timestamp() THEN
        RAISE 'a hold is not due to expire' USING ERRCODE = 'LD412';
    ELSIF p_phase = 'settle' AND v.first_expiry <= clock_timestamp() THEN
        RAISE 'a hold has expired and can no longer be settled' USING ERRCODE = 'LD411';
    ELSIF p_phase = 'settle' THEN
        PERFORM ledger.check_settlement(v.ids, p_accounts, p_amounts);
    END IF;
    RETURN v.ids;
END $$;
