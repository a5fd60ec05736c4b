-- Books many transfers of the phases post and hold in one call, with one verdict each.
--
-- The result is that of one call of ledger.post after the other, in the order given. A refused item leaves no trace, and its
-- SQLSTATE and detail are its verdict. There are two ways to the same books. First all at once, with sets instead of loops: a
-- third of the cost per transfer. When any item is a repeat, is malformed or is refused, that is rolled back and each item is
-- posted in a subtransaction of its own. In both ways balance rows are locked by account id before anything else.
CREATE OR REPLACE FUNCTION ledger.post_batch(
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
