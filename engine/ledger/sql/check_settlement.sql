-- What is settled lies within what was held: the same direction and not more. Every hold is used. No other account with a floor
-- pays.
CREATE OR REPLACE FUNCTION ledger.check_settlement(p_holds bigint[], p_accounts bigint[], p_amounts bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_account bigint;
BEGIN
    SELECT l.a INTO v_account
      FROM unnest(p_accounts, p_amounts) l(a, m) JOIN ledger.accounts a ON a.id = l.a
      LEFT JOIN (SELECT e.account_id, sum(e.amount) AS amount FROM ledger.entries e
                  WHERE e.transfer_id = ANY (p_holds) AND e.layer = 1 GROUP BY 1) h ON h.account_id = l.a
     WHERE CASE WHEN h.amount IS NULL THEN a.floor IS NOT NULL AND a.normal * l.m < 0
                ELSE sign(l.m) <> sign(h.amount) OR abs(l.m) > abs(h.amount) END LIMIT 1;
    IF FOUND THEN
        RAISE 'settles more than was held' USING ERRCODE = 'LD002', DETAIL = jsonb_build_object('account_id', v_account)::text;
    END IF;
    IF EXISTS (SELECT FROM unnest(p_holds) h WHERE NOT EXISTS
                  (SELECT FROM ledger.entries e WHERE e.transfer_id = h AND e.layer = 1 AND e.account_id = ANY (p_accounts))) THEN
        RAISE 'settles nothing of one of its holds' USING ERRCODE = 'LD002';
    END IF;
END $$;
