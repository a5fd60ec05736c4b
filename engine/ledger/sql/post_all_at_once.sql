-- Books all items or none: returns the ids in the order of the items, or raises LD000 when any item needs a closer look.
-- A reference that occurs twice in a batch needs one. The caller has locked the balance rows.
CREATE OR REPLACE FUNCTION ledger.post_all_at_once(
    p_refs text[], p_hashes bytea[], p_templates text[], p_phases text[], p_actors text[], p_workflow_ids text[],
    p_descriptions text[], p_metadata text[], p_effective_on date[], p_expires_at timestamptz[],
    p_items int[], p_accounts bigint[], p_amounts bigint[], p_counts_accounts bigint[],
    p_count_items int[], p_count_kinds text[], p_count_amounts bigint[],
    p_max_items int[], p_max_kinds text[], p_max_windows int[], p_max_amounts bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_received timestamptz := clock_timestamp();
    v_ids bigint[];
    v record;
BEGIN
    IF EXISTS (SELECT FROM unnest(p_phases) p WHERE p NOT IN ('post', 'hold'))
       OR (SELECT count(*) <> count(DISTINCT r) FROM unnest(p_refs) r)
       OR EXISTS (SELECT FROM generate_series(1, cardinality(p_refs)) i
                    LEFT JOIN (SELECT l.item, count(*) AS legs, count(DISTINCT l.a) AS accounts, sum(l.m) AS total, bool_or(l.m = 0) AS zero
                                 FROM unnest(p_items, p_accounts, p_amounts) l(item, a, m) GROUP BY 1) g ON g.item = i
                   WHERE g.legs IS NULL OR g.legs < 2 OR g.accounts <> g.legs OR g.total <> 0 OR g.zero)
       OR EXISTS (SELECT FROM unnest(p_counts_accounts) WITH ORDINALITY c(account_id, n) WHERE c.account_id IS NOT NULL AND NOT EXISTS
                    (SELECT FROM unnest(p_items, p_accounts) l(item, a) JOIN ledger.balances b ON b.account_id = l.a
                      WHERE l.item = c.n AND l.a = c.account_id))
       OR (SELECT count(*) <> count(DISTINCT (k.item, k.kind)) FROM unnest(p_count_items, p_count_kinds) k(item, kind)) THEN
        RAISE 'malformed' USING ERRCODE = 'LD000';
    END IF;
    PERFORM set_config('ledger.posting', 'on', true);
    WITH made AS (
        INSERT INTO ledger.transfers (external_ref, payload_hash, template, phase, actor, workflow_id, description, metadata, effective_on,
                                      expires_at, received_at, counts_account_id, count_kinds, count_amounts)
            SELECT x.ref, x.hash, x.template, x.phase, x.actor, x.workflow_id, x.description, x.metadata::jsonb,
                   coalesce(x.effective_on, (v_received AT TIME ZONE 'UTC')::date), x.expires_at, v_received, x.counts_account, c.kinds, c.amounts
              FROM unnest(p_refs, p_hashes, p_templates, p_phases, p_actors, p_workflow_ids, p_descriptions, p_metadata, p_effective_on, p_expires_at,
                          p_counts_accounts) WITH ORDINALITY
                   x(ref, hash, template, phase, actor, workflow_id, description, metadata, effective_on, expires_at, counts_account, n)
              LEFT JOIN (SELECT u.item, array_agg(u.kind ORDER BY u.n) AS kinds, array_agg(u.amount ORDER BY u.n) AS amounts
                           FROM unnest(p_count_items, p_count_kinds, p_count_amounts) WITH ORDINALITY u(item, kind, amount, n) GROUP BY 1) c ON c.item = x.n
             ORDER BY x.ref
            ON CONFLICT (external_ref) DO NOTHING RETURNING id, external_ref)
        SELECT array_agg(m.id ORDER BY o.n) INTO v_ids FROM unnest(p_refs) WITH ORDINALITY o(ref, n) JOIN made m ON m.external_ref = o.ref;
    IF cardinality(v_ids) IS DISTINCT FROM cardinality(p_refs) THEN
        RAISE 'repeated' USING ERRCODE = 'LD000';
    END IF;
    SELECT array_agg(l.transfer_id) AS t, array_agg(l.account_id) AS a, array_agg(l.currency) AS c, array_agg(l.layer) AS l, array_agg(l.amount) AS m,
           array_agg(l.balance_after) AS b, array_agg(l.version) AS v, bool_and(coalesce(l.allowed, false)) AS allowed
      INTO v FROM ledger.plan_legs(v_ids, p_phases, p_items, p_accounts, p_amounts) l;
    IF NOT v.allowed OR cardinality(v.t) <> cardinality(p_items) THEN
        RAISE 'refused' USING ERRCODE = 'LD000';
    END IF;
    UPDATE ledger.balances b SET settled = b.settled + x.settled, held_dr = b.held_dr + x.held_dr, held_cr = b.held_cr + x.held_cr, version = b.version + x.n
      FROM (SELECT u.a, count(*) AS n, coalesce(sum(u.m) FILTER (WHERE u.l = 0), 0) AS settled,
                   coalesce(sum(greatest(u.m, 0)) FILTER (WHERE u.l = 1), 0) AS held_dr, coalesce(sum(greatest(-u.m, 0)) FILTER (WHERE u.l = 1), 0) AS held_cr
              FROM unnest(v.a, v.l, v.m, v.v) u(a, l, m, v) WHERE u.v IS NOT NULL GROUP BY u.a) x
     WHERE b.account_id = x.a;
    IF NOT ledger.count_up_together(p_counts_accounts, p_count_items, p_count_kinds, p_count_amounts, p_max_items, p_max_kinds,
                                    p_max_windows, p_max_amounts, v_received) THEN
        RAISE 'limited' USING ERRCODE = 'LD000';
    END IF;
    INSERT INTO ledger.entries (transfer_id, account_id, currency, layer, amount, balance_after, version, posted_at)
        SELECT x.t, x.a, x.c, x.l, x.m, x.b, x.v, p.now
          FROM (SELECT clock_timestamp() AS now OFFSET 0) p, unnest(v.t, v.a, v.c, v.l, v.m, v.b, v.v) x(t, a, c, l, m, b, v);
    PERFORM set_config('ledger.posting', 'off', true);
    RETURN v_ids;
END $$;
