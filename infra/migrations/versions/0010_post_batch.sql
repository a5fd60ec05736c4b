-- Group commit: ledger.post_batch books many transfers in one call and one commit, with one verdict each.
--
-- Means the same as one call of ledger.post after the other, in the order given, where a refused one leaves no trace:
-- its neighbours are booked, its SQLSTATE and detail are its verdict. Phases post and hold only.
-- Two ways to the same books. All at once: sets instead of loops, taken when every item can be booked (what it costs per
-- transfer is a third of a call of its own). One by one: when any item is a repeat, is malformed or meets a rule's no,
-- all at once is taken back and each is posted in a subtransaction of its own.
-- Together with others: balance rows are locked by account id before anything else, in both ways.

CREATE FUNCTION ledger.post_batch(
    p_refs text[], p_hashes bytea[], p_templates text[], p_phases text[], p_actors text[], p_workflow_ids text[],
    p_descriptions text[], p_metadata text[], p_effective_on date[], p_expires_at timestamptz[],
    p_items int[], p_accounts bigint[], p_amounts bigint[], p_counts_accounts bigint[],
    p_count_items int[], p_count_kinds text[], p_count_amounts bigint[],
    p_max_items int[], p_max_kinds text[], p_max_windows int[], p_max_amounts bigint[])
    RETURNS TABLE (transfer_id bigint, fresh boolean, state text, message text, detail text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    v_ids bigint[]; i int; v record;
BEGIN
    PERFORM FROM ledger.balances b WHERE b.account_id = ANY (p_accounts) ORDER BY b.account_id FOR UPDATE;
    BEGIN
        v_ids := ledger.post_all_at_once(p_refs, p_hashes, p_templates, p_phases, p_actors, p_workflow_ids, p_descriptions,
            p_metadata, p_effective_on, p_expires_at, p_items, p_accounts, p_amounts, p_counts_accounts,
            p_count_items, p_count_kinds, p_count_amounts, p_max_items, p_max_kinds, p_max_windows, p_max_amounts);
    EXCEPTION WHEN SQLSTATE 'LD000' OR integrity_constraint_violation OR data_exception THEN  -- LD000 is the class, LD402 and all
        v_ids := NULL;
    END;
    IF v_ids IS NOT NULL THEN
        RETURN QUERY SELECT x.id, true, NULL::text, NULL::text, NULL::text FROM unnest(v_ids) WITH ORDINALITY x(id, item) ORDER BY x.item;
        RETURN;
    END IF;
    FOR i IN 1 .. cardinality(p_refs) LOOP
        SELECT l.accounts, l.amounts, c.kinds, c.counts, m.kinds AS max_kinds, m.windows, m.most INTO v
          FROM (SELECT coalesce(array_agg(u.a ORDER BY u.n), '{}') AS accounts, coalesce(array_agg(u.m ORDER BY u.n), '{}') AS amounts
                  FROM unnest(p_items, p_accounts, p_amounts) WITH ORDINALITY u(item, a, m, n) WHERE u.item = i) l
         CROSS JOIN (SELECT array_agg(u.kind ORDER BY u.n) AS kinds, array_agg(u.amount ORDER BY u.n) AS counts
                  FROM unnest(p_count_items, p_count_kinds, p_count_amounts) WITH ORDINALITY u(item, kind, amount, n) WHERE u.item = i) c
         CROSS JOIN (SELECT coalesce(array_agg(u.kind ORDER BY u.n), '{}') AS kinds, coalesce(array_agg(u.window_s ORDER BY u.n), '{}') AS windows,
                       coalesce(array_agg(u.most ORDER BY u.n), '{}') AS most
                  FROM unnest(p_max_items, p_max_kinds, p_max_windows, p_max_amounts) WITH ORDINALITY u(item, kind, window_s, most, n) WHERE u.item = i) m;
        state := NULL; message := NULL; detail := NULL;
        BEGIN
            SELECT p.transfer_id, p.fresh INTO post_batch.transfer_id, post_batch.fresh FROM ledger.post(
                p_refs[i], p_hashes[i], p_templates[i], p_phases[i], '{}', v.accounts, v.amounts, p_actors[i],
                p_workflow_ids[i], p_descriptions[i], p_metadata[i]::jsonb, p_effective_on[i], p_expires_at[i],
                p_counts_accounts[i], v.kinds, v.counts, v.max_kinds, v.windows, v.most) p;
        EXCEPTION WHEN OTHERS THEN
            IF SQLSTATE !~ '^(LD|22|23)' OR SQLSTATE = 'LD406' THEN RAISE; END IF;  -- lost, raced, full: says nothing about this item
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
            transfer_id := NULL; fresh := NULL;
        END;
        RETURN NEXT;
    END LOOP;
END $$;

-- All or nothing: the ids in the order of the items, or LD000 when anything asks for a closer look. The rows are locked.
CREATE FUNCTION ledger.post_all_at_once(
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

-- As ledger.count_up for all of them: whether no maximum is exceeded. What counts is above zero, so where all together are
-- within a maximum, each of them was. The balance rows are locked.
CREATE FUNCTION ledger.count_up_together(p_counts_accounts bigint[], p_count_items int[], p_count_kinds text[], p_count_amounts bigint[],
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

-- Each leg with the version and balance that it will leave, as if the items had been posted one after the other.
CREATE FUNCTION ledger.plan_legs(p_transfers bigint[], p_phases text[], p_items int[], p_accounts bigint[], p_amounts bigint[])
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

REVOKE ALL ON FUNCTION ledger.post_batch, ledger.post_all_at_once, ledger.count_up_together, ledger.plan_legs FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.post_batch TO millrace_app;

-- Where a payment is that was accepted and that no worker has opened yet, if it shares its workflow with others.
CREATE TABLE bank.boarded_payments(
  payment_id  text PRIMARY KEY,
  workflow_id text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp());
GRANT SELECT, INSERT ON bank.boarded_payments TO millrace_app;

-- A key is claimed for what a transaction is about to make. If a rule says no, the claim becomes the refusal before it is
-- committed: what was committed under a key never changes.
CREATE FUNCTION bank.keep_answers() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.xmin <> pg_current_xact_id()::xid OR OLD.resource_id IS NULL OR NEW.refusal IS NULL
       OR (NEW.account_id, NEW.key, NEW.body_hash) <> (OLD.account_id, OLD.key, OLD.body_hash) THEN
        RAISE 'the answer of a key never changes' USING ERRCODE = 'LD405';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_answers BEFORE UPDATE ON bank.idempotency_keys FOR EACH ROW EXECUTE FUNCTION bank.keep_answers();
GRANT UPDATE (resource_id, refusal) ON bank.idempotency_keys TO millrace_app;
