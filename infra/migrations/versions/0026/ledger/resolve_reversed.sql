-- A transfer is reversed once, in part or whole. What cannot be taken back may only become an expense, also where the transfer had
-- credited that expense.
CREATE OR REPLACE FUNCTION ledger.resolve_reversed(p_transfer bigint, p_ref text, p_accounts bigint[], p_amounts bigint[]) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE v_target bigint;
BEGIN
    SELECT t.id INTO v_target FROM ledger.transfers t WHERE t.external_ref = p_ref AND t.phase IN ('post', 'settle');
    IF NOT FOUND THEN RAISE 'nothing to reverse under %', p_ref USING ERRCODE = 'LD404'; END IF;
    INSERT INTO ledger.resolutions (target_id, transfer_id) VALUES (v_target, p_transfer) ON CONFLICT (target_id) DO NOTHING;
    IF NOT FOUND THEN RAISE '% is already reversed', p_ref USING ERRCODE = 'LD413'; END IF;
    IF EXISTS (SELECT FROM unnest(p_accounts, p_amounts) l(a, m) JOIN ledger.accounts a ON a.id = l.a
               LEFT JOIN ledger.entries e ON e.transfer_id = v_target AND e.account_id = l.a AND e.layer = 0
               WHERE CASE WHEN a.kind = 'expense' AND coalesce(e.amount, 0) <= 0 THEN l.m < 0
                          WHEN e.amount IS NULL THEN true
                          ELSE sign(l.m) = sign(e.amount) OR abs(l.m) > abs(e.amount) END) THEN
        RAISE 'reverses more than there was' USING ERRCODE = 'LD002';
    END IF;
END $$;
