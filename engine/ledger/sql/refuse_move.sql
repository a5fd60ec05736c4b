-- Raises the reason why a balance cannot move like that: LD423, LD403 or LD402.
CREATE OR REPLACE FUNCTION ledger.refuse_move(b ledger.balances, p_change bigint, p_phase text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF b.closed THEN
        RAISE 'account % is closed', b.account_id USING ERRCODE = 'LD423', DETAIL = jsonb_build_object('account_id', b.account_id)::text;
    ELSIF b.frozen AND p_change < 0 AND p_phase IN ('post', 'hold') THEN
        RAISE 'account % is frozen', b.account_id USING ERRCODE = 'LD403', DETAIL = jsonb_build_object('account_id', b.account_id)::text;
    END IF;
    RAISE 'account % has too little available', b.account_id USING ERRCODE = 'LD402', DETAIL =
        jsonb_build_object('account_id', b.account_id, 'available', b.available - b.floor, 'needed', -p_change)::text;
END $$;
