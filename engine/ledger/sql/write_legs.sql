-- Moves all balances in the order of account ids and writes the legs in one statement.
CREATE OR REPLACE FUNCTION ledger.write_legs(p_transfer bigint, p_phase text, p_holds bigint[], p_accounts bigint[], p_amounts bigint[])
    RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_layer smallint := CASE p_phase WHEN 'hold' THEN 1 ELSE 0 END;
    v_layers smallint[] := array_fill(v_layer, ARRAY[cardinality(p_accounts)]);
    v_accounts bigint[] := p_accounts; v_amounts bigint[] := p_amounts; v_sign int := 1;
    v record; b ledger.balances; i int; v_change bigint;
    v_settled_after bigint[]; v_held_after bigint[]; v_versions bigint[];
BEGIN
    IF p_holds <> '{}' THEN
        v_sign := -1;
        SELECT v_accounts || array_agg(e.account_id), v_amounts || array_agg(-e.amount), v_layers || array_agg(1::smallint)
          INTO v_accounts, v_amounts, v_layers FROM ledger.entries e WHERE e.transfer_id = ANY (p_holds) AND e.layer = 1;
    END IF;
    SELECT array_agg(s.id) AS ids, array_agg(s.currency) AS currencies, array_agg(s.settled) AS settled, array_agg(s.held_dr) AS held_dr,
           array_agg(s.held_cr) AS held_cr, coalesce(sum(s.given), 0) AS given, bool_or(s.held_dr <> 0 AND s.held_cr <> 0) AS twofold
      INTO v
      FROM (SELECT a.id, a.currency, count(*) FILTER (WHERE l.layer = v_layer) AS given,
                   coalesce(sum(l.m) FILTER (WHERE l.layer = 0), 0)::bigint AS settled,
                   coalesce(sum(greatest(l.m * v_sign, 0)) FILTER (WHERE l.layer = 1), 0)::bigint * v_sign AS held_dr,
                   coalesce(sum(greatest(-l.m * v_sign, 0)) FILTER (WHERE l.layer = 1), 0)::bigint * v_sign AS held_cr
              FROM unnest(v_accounts, v_amounts, v_layers) l(a, m, layer) JOIN ledger.accounts a ON a.id = l.a
             GROUP BY a.id, a.currency) s;
    v_versions := array_fill(NULL::bigint, ARRAY[coalesce(cardinality(v.ids), 0)]);
    v_settled_after := v_versions; v_held_after := v_versions;
    FOR b IN SELECT x.* FROM ledger.balances x WHERE x.account_id = ANY (v.ids) ORDER BY x.account_id FOR NO KEY UPDATE LOOP
        i := array_position(v.ids, b.account_id);
        v_change := b.normal * v.settled[i] - CASE b.normal WHEN 1 THEN v.held_cr[i] ELSE v.held_dr[i] END;
        IF b.closed OR b.available + v_change < b.floor OR (b.frozen AND v_change < 0 AND p_phase IN ('post', 'hold')) THEN
            PERFORM ledger.refuse_move(b, v_change, p_phase);
        END IF;
        v_settled_after[i] := b.settled + v.settled[i];
        v_held_after[i] := b.held_dr + v.held_dr[i] - b.held_cr - v.held_cr[i];
        v_versions[i] := b.version + 1;
    END LOOP;
    IF v.given <> cardinality(p_accounts) THEN
        RAISE 'a leg names no account' USING ERRCODE = 'LD404';
    ELSIF v.twofold THEN
        RAISE 'holds in both directions on one account cannot be resolved together' USING ERRCODE = 'LD001';
    END IF;
    UPDATE ledger.balances x SET settled = x.settled + m.settled, held_dr = x.held_dr + m.held_dr, held_cr = x.held_cr + m.held_cr,
                                 version = x.version + 1
      FROM unnest(v.ids, v.settled, v.held_dr, v.held_cr) m(id, settled, held_dr, held_cr) WHERE x.account_id = m.id;
    INSERT INTO ledger.entries (transfer_id, account_id, currency, layer, amount, balance_after, version, posted_at)
        SELECT p_transfer, m.id, m.currency, e.layer, e.amount, e.balance_after, m.version, t.now
          FROM (SELECT clock_timestamp() AS now OFFSET 0) t,
               unnest(v.ids, v.currencies, v.settled, v.held_dr, v.held_cr, v_settled_after, v_held_after, v_versions)
                   m(id, currency, settled, held_dr, held_cr, settled_after, held_after, version),
               LATERAL (VALUES (0::smallint, m.settled, m.settled_after),
                               (1::smallint, m.held_dr - m.held_cr, m.held_after)) e(layer, amount, balance_after)
         WHERE e.amount <> 0;
    RETURN true;
END $$;
