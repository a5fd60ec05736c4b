-- Counts, then compares, under the lock of the account's balance row, which the legs have taken. The maxima come from the caller
-- as (kind, window, most); the first that is exceeded is named. Buckets in the future, left by a clock that was set back, count.
CREATE OR REPLACE FUNCTION ledger.count_up(p_account bigint, p_kinds text[], p_amounts bigint[],
    p_max_kinds text[], p_max_windows int[], p_max_amounts bigint[], p_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO ledger.counters AS c (account_id, kind, window_s, bucket, amount)
        SELECT b.account_id, k.kind, w, ledger.counter_bucket(w, p_at), k.amount
          FROM ledger.balances b CROSS JOIN unnest(p_kinds, p_amounts) k(kind, amount) CROSS JOIN unnest(ledger.counted_windows()) w
         WHERE b.account_id = p_account
        ON CONFLICT (account_id, kind, window_s, bucket) DO UPDATE SET amount = CASE
            WHEN c.amount <= 9223372036854775807 - excluded.amount THEN c.amount + excluded.amount
            ELSE ledger.refuse_count(c.account_id, c.kind, c.window_s, 9223372036854775807, c.amount, excluded.amount) END;
    IF NOT FOUND THEN
        RAISE 'limits need a locked account' USING ERRCODE = 'LD001';
    END IF;
    IF p_max_kinds <> '{}' THEN
        SELECT m.kind, m.window_s, m.most, u.used - k.amount AS used, k.amount AS asked INTO r
          FROM unnest(p_max_kinds, p_max_windows, p_max_amounts) WITH ORDINALITY m(kind, window_s, most, place)
          JOIN unnest(p_kinds, p_amounts) k(kind, amount) ON k.kind = m.kind
          CROSS JOIN LATERAL (SELECT sum(c.amount) AS used FROM ledger.counters c WHERE c.account_id = p_account AND c.kind = m.kind
              AND c.window_s = m.window_s AND c.bucket > ledger.window_begin(m.window_s, v_now)) u
         WHERE coalesce(u.used > m.most, true) ORDER BY m.place LIMIT 1;
        IF FOUND THEN
            PERFORM ledger.refuse_count(p_account, r.kind, r.window_s, r.most, r.used, r.asked);
        END IF;
    END IF;
END $$;
