-- Each leg with the version and the balance that it will leave, as if the items were posted one after the other.
CREATE OR REPLACE FUNCTION ledger.plan_legs(p_transfers bigint[], p_phases text[], p_items int[], p_accounts bigint[], p_amounts bigint[])
    RETURNS TABLE (transfer_id bigint, account_id bigint, currency text, layer smallint, amount bigint, balance_after bigint, version bigint, allowed boolean)
    LANGUAGE sql STABLE AS $$
    SELECT l.t, l.a, a.currency, l.layer, l.m,
           (CASE l.layer WHEN 0 THEN b.settled ELSE b.held_dr - b.held_cr END + sum(l.m) OVER (PARTITION BY l.a, l.layer ORDER BY l.item))::bigint,
           b.version + row_number() OVER w,
           a.mode = 'append' OR (NOT b.closed AND (b.floor IS NULL OR b.available + sum(x.change) OVER w >= b.floor) AND NOT (b.frozen AND x.change < 0))
      FROM (SELECT u.item, u.a, u.m, i.t, (i.phase = 'hold')::int::smallint AS layer FROM unnest(p_items, p_accounts, p_amounts) u(item, a, m)
              JOIN unnest(p_transfers, p_phases) WITH ORDINALITY i(t, phase, n) ON i.n = u.item) l
      JOIN ledger.accounts a ON a.id = l.a
      LEFT JOIN ledger.balances b ON b.account_id = l.a
     CROSS JOIN LATERAL (SELECT CASE l.layer WHEN 0 THEN a.normal * l.m ELSE least(a.normal * l.m, 0) END AS change) x
    WINDOW w AS (PARTITION BY l.a ORDER BY l.item)
$$;
