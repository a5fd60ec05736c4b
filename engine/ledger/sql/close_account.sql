-- Closes an account for good. A transfer at the same moment comes before it, and then it is not empty, or after it, and is
-- refused.
CREATE OR REPLACE FUNCTION ledger.close_account(p_account bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE b ledger.balances;
BEGIN
    PERFORM set_config('ledger.posting', 'on', true);
    SELECT * INTO b FROM ledger.balances WHERE account_id = p_account FOR UPDATE;
    IF NOT FOUND THEN RAISE 'no locked account %', p_account USING ERRCODE = 'LD404'; END IF;
    IF b.settled <> 0 OR b.held_dr <> 0 OR b.held_cr <> 0 THEN
        RAISE 'account % is not empty', p_account USING ERRCODE = 'LD424', DETAIL = jsonb_build_object('balance', b.normal * b.settled,
            'held', CASE b.normal WHEN 1 THEN b.held_cr ELSE b.held_dr END, 'incoming', CASE b.normal WHEN 1 THEN b.held_dr ELSE b.held_cr END)::text;
    END IF;
    UPDATE ledger.balances SET closed = true WHERE account_id = p_account;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;
