-- An account's sums, debit +, of entries posted at or before p_at; 'infinity' is now. `cursor` moves with every entry that no
-- closing has taken in yet. Exact once every transaction that was open at p_at has ended.
CREATE OR REPLACE FUNCTION ledger.sums_at(p_account bigint, p_at timestamptz)
    RETURNS TABLE (settled bigint, held bigint, cursor bigint) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT (coalesce(c.settled, 0) + coalesce(e.settled, 0))::bigint, (coalesce(c.held, 0) + coalesce(e.held, 0))::bigint,
           coalesce(e.cursor, 0)
      FROM (SELECT 1) one
      LEFT JOIN LATERAL (SELECT l.at, l.settled, l.held FROM ledger.closings l
                          WHERE l.account_id = p_account AND l.at <= p_at ORDER BY l.at DESC LIMIT 1) c ON true
      CROSS JOIN LATERAL (SELECT sum(n.amount) FILTER (WHERE n.layer = 0) AS settled,
                                 sum(n.amount) FILTER (WHERE n.layer = 1) AS held, max(n.seq) AS cursor
                            FROM ledger.entries n WHERE n.account_id = p_account
                             AND n.posted_at > coalesce(c.at, '-infinity') AND n.posted_at <= p_at) e $$;
