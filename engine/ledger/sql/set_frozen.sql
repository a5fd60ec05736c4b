-- Freezes or releases an account, for operators. A frozen account receives, and earlier promises are kept; it promises and spends
-- nothing new.
CREATE OR REPLACE FUNCTION ledger.set_frozen(p_account bigint, p_frozen boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('ledger.posting', 'on', true);
    UPDATE ledger.balances SET frozen = p_frozen WHERE account_id = p_account;
    IF NOT FOUND THEN RAISE 'no locked account %', p_account USING ERRCODE = 'LD404'; END IF;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;
