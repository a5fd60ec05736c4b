-- Opens an account, with a balance row when it is locked, or finds it. The same code with other content is LD409.
CREATE OR REPLACE FUNCTION ledger.open_account(p_code text, p_kind text, p_currency text, p_floor bigint, p_mode text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE v ledger.accounts;
BEGIN
    SELECT * INTO v FROM ledger.accounts WHERE code = p_code;
    IF NOT FOUND THEN
        PERFORM set_config('ledger.posting', 'on', true);
        INSERT INTO ledger.accounts (code, kind, currency, floor, mode) VALUES (p_code, p_kind, p_currency, p_floor, p_mode)
            ON CONFLICT (code) DO NOTHING RETURNING * INTO v;
        IF NOT FOUND THEN  -- someone was quicker, and has committed
            SELECT * INTO v FROM ledger.accounts WHERE code = p_code;
        ELSIF v.mode = 'locked' THEN
            INSERT INTO ledger.balances (account_id, normal, floor) VALUES (v.id, v.normal, v.floor);
        END IF;
        PERFORM set_config('ledger.posting', 'off', true);
    END IF;
    IF (v.kind, v.currency, v.floor, v.mode) IS DISTINCT FROM (p_kind, p_currency, p_floor, p_mode) THEN
        RAISE 'account % exists with other content', p_code USING ERRCODE = 'LD409';
    END IF;
    RETURN v.id;
END $$;
