-- ledger.count_up for all items: returns whether no maximum is exceeded. Every amount is above zero, so when all items together
-- stay within a maximum, each of them did. The caller has locked the balance rows.
CREATE OR REPLACE FUNCTION ledger.count_up_together(p_counts_accounts bigint[], p_count_items int[], p_count_kinds text[], p_count_amounts bigint[],
    p_max_items int[], p_max_kinds text[], p_max_windows int[], p_max_amounts bigint[], p_at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    IF p_count_items = '{}' THEN
        RETURN true;
    END IF;
    INSERT INTO ledger.counters AS c (account_id, kind, window_s, bucket, amount)
        SELECT a.account_id, k.kind, w, ledger.counter_bucket(w, p_at), sum(k.amount)
          FROM unnest(p_count_items, p_count_kinds, p_count_amounts) k(item, kind, amount)
          JOIN unnest(p_counts_accounts) WITH ORDINALITY a(account_id, n) ON a.n = k.item
         CROSS JOIN unnest(ledger.counted_windows()) w GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (account_id, kind, window_s, bucket) DO UPDATE SET amount = c.amount + excluded.amount;
    RETURN NOT EXISTS (
        SELECT FROM (SELECT a.account_id, m.kind, m.window_s, min(m.most) AS most
                       FROM unnest(p_max_items, p_max_kinds, p_max_windows, p_max_amounts) m(item, kind, window_s, most)
                       JOIN unnest(p_counts_accounts) WITH ORDINALITY a(account_id, n) ON a.n = m.item GROUP BY 1, 2, 3) m
         CROSS JOIN LATERAL (SELECT sum(c.amount) AS used FROM ledger.counters c WHERE c.account_id = m.account_id AND c.kind = m.kind
              AND c.window_s = m.window_s AND c.bucket > ledger.window_begin(m.window_s, v_now)) u
         WHERE coalesce(u.used > m.most, true));
END $$;
