-- Gives back what was promised and did not leave, in the buckets in which it was counted, whatever the clock says now.
-- Void and expire give back all of it. Settle gives back the share of the hold that did not leave the account, rounded down, so
-- what stays counted is never less than what left, in any unit. A hold whose first count differs from what it holds was made
-- before fees counted (migration 0021): it keeps its counts.
CREATE OR REPLACE FUNCTION ledger.count_down(p_holds bigint[], p_phase text, p_accounts bigint[], p_amounts bigint[]) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    h record;
    v_left bigint;
BEGIN
    FOR h IN
        SELECT t.counts_account_id AS account_id, t.received_at, t.count_kinds AS kinds, t.count_amounts AS amounts, abs(e.amount) AS own,
               sum(abs(e.amount)) OVER (PARTITION BY t.counts_account_id) AS held
          FROM ledger.transfers t
          JOIN ledger.entries e ON e.transfer_id = t.id AND e.account_id = t.counts_account_id AND e.layer = 1
         WHERE t.id = ANY (p_holds)
    LOOP
        v_left := coalesce(abs(p_amounts[array_position(p_accounts, h.account_id)]), 0);
        CONTINUE WHEN v_left = h.held OR (p_phase = 'settle' AND h.own <> h.amounts[1]);
        UPDATE ledger.counters c SET amount = c.amount - k.amount + div(k.amount::numeric * v_left + h.held - 1, h.held)
          FROM unnest(h.kinds, h.amounts) k(kind, amount) CROSS JOIN unnest(ledger.counted_windows()) w
         WHERE c.account_id = h.account_id AND c.kind = k.kind AND c.window_s = w AND c.bucket = ledger.counter_bucket(w, h.received_at);
    END LOOP;
END $$;
