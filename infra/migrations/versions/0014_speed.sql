-- The same books for less CPU and shorter locks. Every rule of 0001 to 0013 stands; some are asked in another place.

-- PostgreSQL reads and plans every CHECK of a table anew for each statement: eleven of them were a fifth of what a posting
-- cost. A function is compiled once per connection. The rules are those of 0001 and 0006, word for word.
CREATE FUNCTION ledger.is_well_formed(p_ref text, p_hash bytea, p_template text, p_phase text, p_actor text, p_workflow_id text,
    p_description text, p_metadata jsonb, p_effective_on date, p_expires_at timestamptz, p_counts_account bigint, p_kinds text[],
    p_amounts bigint[], p_received_at timestamptz) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN length(p_ref) BETWEEN 1 AND 200 AND octet_length(p_hash) = 32 AND length(p_template) BETWEEN 1 AND 200
       AND p_phase IN ('post', 'hold', 'settle', 'void', 'expire', 'reverse') AND length(p_actor) BETWEEN 1 AND 200
       AND (p_workflow_id IS NULL OR length(p_workflow_id) <= 500) AND (p_description IS NULL OR length(p_description) <= 1000)
       AND jsonb_typeof(p_metadata) = 'object' AND octet_length(p_metadata::text) <= 8192
       AND (p_expires_at IS NULL OR p_phase = 'hold')
       AND p_effective_on <= (p_received_at AT TIME ZONE 'UTC')::date
       AND num_nulls(p_counts_account, p_kinds, p_amounts) IN (0, 3)
       AND (p_kinds IS NULL OR (p_phase IN ('post', 'hold') AND cardinality(p_kinds) BETWEEN 1 AND 100
            AND cardinality(p_kinds) = cardinality(p_amounts) AND array_position(p_kinds, NULL) IS NULL
            AND array_position(p_amounts, NULL) IS NULL AND 0 < ALL (p_amounts)));
END $$;
ALTER TABLE ledger.transfers
    DROP CONSTRAINT transfers_external_ref_check, DROP CONSTRAINT transfers_payload_hash_check,
    DROP CONSTRAINT transfers_template_check, DROP CONSTRAINT transfers_phase_check, DROP CONSTRAINT transfers_actor_check,
    DROP CONSTRAINT transfers_workflow_id_check, DROP CONSTRAINT transfers_description_check,
    DROP CONSTRAINT transfers_metadata_check, DROP CONSTRAINT only_holds_expire, DROP CONSTRAINT not_in_the_future,
    DROP CONSTRAINT counts_whole,
    ADD CONSTRAINT well_formed CHECK (ledger.is_well_formed(external_ref, payload_hash, template, phase, actor, workflow_id,
        description, metadata, effective_on, expires_at, counts_account_id, count_kinds, count_amounts, received_at));

-- The same for counters: their rules call functions in SQL, which were taken apart anew for each statement.
CREATE FUNCTION ledger.is_bucket(p_window_s int, p_bucket timestamptz) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN p_window_s = ANY (ledger.counted_windows()) AND p_bucket = ledger.counter_bucket(p_window_s, p_bucket);
END $$;
ALTER TABLE ledger.counters DROP CONSTRAINT counters_window_s_check, DROP CONSTRAINT bucket_begins,
    ADD CONSTRAINT bucket_begins CHECK (ledger.is_bucket(window_s, bucket));

-- Counts, then looks: under the lock of the account's balance row, which the legs have taken. The maxima come from the caller,
-- as (kind, window, most); the first that is exceeded is named. A clock that was set back leaves buckets in the future: they count.
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
        ON CONFLICT (account_id, kind, window_s, bucket) DO UPDATE SET amount = c.amount + excluded.amount;
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
            RAISE 'limit of % per % s exceeded', r.most, r.window_s USING ERRCODE = 'LD429', DETAIL = jsonb_build_object('account_id', p_account,
                'kind', r.kind, 'window_s', r.window_s, 'limit', r.most, 'used', r.used, 'asked', r.asked)::text;
        END IF;
    END IF;
END $$;

-- These write nothing and name everything with its schema: a search path of their own is set at each call, and gains nothing.
-- Counters may be deleted too, by the one function that is about to say so.
CREATE OR REPLACE FUNCTION ledger.refuse_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE v_posting text := current_setting('ledger.posting', true);
BEGIN
    IF TG_OP = 'DELETE' AND TG_ARGV[0] = 'running sum that ends' AND v_posting = 'pruning' THEN
        RETURN NULL;
    ELSIF TG_OP IN ('DELETE', 'TRUNCATE') OR (TG_OP = 'UPDATE' AND TG_ARGV[0] = 'append-only') THEN
        RAISE '% in ledger.% refused: the books are append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    ELSIF v_posting IS DISTINCT FROM 'on' THEN
        RAISE '% in ledger.% refused: only the functions of the ledger write here', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION ledger.refuse_changes() RESET ALL;
ALTER FUNCTION ledger.refuse_closed() RESET ALL;

-- Legs come all at once: balanced per currency and layer, and nothing of the same transfer before or after them.
CREATE OR REPLACE FUNCTION ledger.check_legs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM new_legs GROUP BY transfer_id, currency, layer HAVING sum(amount) <> 0) THEN
        RAISE 'unbalanced: the legs do not sum to zero per currency and layer' USING ERRCODE = 'LD001';
    ELSIF (SELECT count(*) FROM new_legs) <>
          (SELECT count(*) FROM ledger.entries e WHERE e.transfer_id = ANY (ARRAY(SELECT transfer_id FROM new_legs))) THEN
        RAISE 'legs added to a transfer that has its legs' USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION ledger.check_legs() RESET ALL;

-- Legs balance and none is zero: a transfer that has one has two.
CREATE OR REPLACE FUNCTION ledger.check_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.entries e WHERE e.transfer_id = NEW.id) THEN
        RAISE 'transfer % has no legs', NEW.external_ref USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION ledger.check_transfer() RESET ALL;

-- What is wrong with a request, or NULL. An answer that is assigned is computed without a statement of its own.
DROP FUNCTION ledger.check_request;
CREATE FUNCTION ledger.find_malformed(p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[],
    p_counts_account bigint, p_count_kinds text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_legs int := cardinality(p_accounts);
    v_related int := cardinality(p_relates_to);
    v_double boolean := p_accounts[1] = p_accounts[2];
BEGIN
    IF v_legs > 2 THEN
        v_double := (SELECT count(DISTINCT a) <> v_legs FROM unnest(p_accounts) a);
    END IF;
    IF v_legs IS NULL OR v_related IS NULL OR v_legs IS DISTINCT FROM cardinality(p_amounts) OR v_legs > 5000 OR v_related > 1000
       OR v_double OR array_position(p_accounts, NULL) IS NOT NULL OR array_position(p_amounts, NULL) IS NOT NULL
       OR 0 = ANY (p_amounts) THEN
        RETURN 'legs are missing, zero, double or too many';
    END IF;
    IF NOT coalesce(CASE WHEN p_phase IN ('post', 'hold')    THEN v_legs >= 2 AND v_related = 0
                         WHEN p_phase = 'settle'             THEN v_legs >= 2 AND v_related >= 1
                         WHEN p_phase = 'reverse'            THEN v_legs >= 2 AND v_related = 1
                         WHEN p_phase IN ('void', 'expire')  THEN v_legs = 0 AND v_related >= 1 END, false) THEN
        RETURN format('phase %s cannot have %s legs and relate to %s transfers', p_phase, v_legs, v_related);
    END IF;
    IF p_counts_account IS NOT NULL AND (p_counts_account <> ALL (p_accounts)
       OR (SELECT count(DISTINCT k) FROM unnest(p_count_kinds) k) IS DISTINCT FROM cardinality(p_count_kinds)::bigint) THEN
        RETURN 'what counts against limits counts on an account that has a leg, once per kind';
    END IF;
    RETURN NULL;
END $$;

-- Settle, void or expire: takes each hold once, whoever races, and returns their ids.
CREATE OR REPLACE FUNCTION ledger.resolve_holds(p_transfer bigint, p_phase text, p_refs text[], p_accounts bigint[], p_amounts bigint[])
    RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v record; v_taken int;
BEGIN
    SELECT array_agg(t.id ORDER BY t.id) AS ids, count(*) AS n, min(t.expires_at) AS first_expiry,
           max(coalesce(t.expires_at, 'infinity')) AS last_expiry
      INTO v FROM ledger.transfers t WHERE t.external_ref = ANY (p_refs) AND t.phase = 'hold';
    IF v.n <> cardinality(p_refs) THEN
        RAISE 'no such hold among %', p_refs USING ERRCODE = 'LD404';
    END IF;
    INSERT INTO ledger.resolutions (target_id, transfer_id) SELECT h, p_transfer FROM unnest(v.ids) h ON CONFLICT (target_id) DO NOTHING;
    GET DIAGNOSTICS v_taken = ROW_COUNT;
    IF v_taken <> v.n THEN
        RAISE 'hold already resolved' USING ERRCODE = 'LD410', DETAIL = (
            SELECT jsonb_build_object('hold', h.external_ref, 'resolved_by', t.external_ref, 'phase', t.phase)::text
              FROM ledger.resolutions r JOIN ledger.transfers h ON h.id = r.target_id JOIN ledger.transfers t ON t.id = r.transfer_id
             WHERE r.target_id = ANY (v.ids) AND r.transfer_id <> p_transfer ORDER BY h.id LIMIT 1);
    END IF;
    IF p_phase = 'expire' AND v.last_expiry > clock_timestamp() THEN
        RAISE 'a hold is not due to expire' USING ERRCODE = 'LD412';
    ELSIF p_phase = 'settle' AND v.first_expiry <= clock_timestamp() THEN
        RAISE 'a hold has expired and can no longer be settled' USING ERRCODE = 'LD411';
    ELSIF p_phase = 'settle' THEN
        PERFORM ledger.check_settlement(v.ids, p_accounts, p_amounts);
    END IF;
    RETURN v.ids;
END $$;

-- Moves all balances and writes all legs, or says why not. While the balance rows are locked, others wait for this transaction:
-- they are locked last, by account id, and then there is one statement for all balances and one for all legs.
DROP FUNCTION ledger.write_legs, ledger.move_balance;
CREATE FUNCTION ledger.write_legs(p_transfer bigint, p_phase text, p_holds bigint[], p_accounts bigint[], p_amounts bigint[])
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

-- Why a balance cannot move like that.
CREATE FUNCTION ledger.refuse_move(b ledger.balances, p_change bigint, p_phase text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF b.closed THEN
        RAISE 'account % is closed', b.account_id USING ERRCODE = 'LD423', DETAIL = jsonb_build_object('account_id', b.account_id)::text;
    ELSIF b.frozen AND p_change < 0 AND p_phase IN ('post', 'hold') THEN
        RAISE 'account % is frozen', b.account_id USING ERRCODE = 'LD403', DETAIL = jsonb_build_object('account_id', b.account_id)::text;
    END IF;
    RAISE 'account % has too little available', b.account_id USING ERRCODE = 'LD402', DETAIL =
        jsonb_build_object('account_id', b.account_id, 'available', b.available - b.floor, 'needed', -p_change)::text;
END $$;

CREATE OR REPLACE FUNCTION ledger.post(
    p_ref text, p_hash bytea, p_template text, p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[], p_actor text,
    p_workflow_id text DEFAULT NULL, p_description text DEFAULT NULL, p_metadata jsonb DEFAULT '{}', p_effective_on date DEFAULT NULL,
    p_expires_at timestamptz DEFAULT NULL, p_counts_account bigint DEFAULT NULL, p_count_kinds text[] DEFAULT NULL,
    p_count_amounts bigint[] DEFAULT NULL, p_max_kinds text[] DEFAULT '{}', p_max_windows int[] DEFAULT '{}',
    p_max_amounts bigint[] DEFAULT '{}', OUT transfer_id bigint, OUT fresh boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    v_received timestamptz := clock_timestamp();
    v_holds bigint[] := '{}';
    v_wrong text := ledger.find_malformed(p_phase, p_relates_to, p_accounts, p_amounts, p_counts_account, p_count_kinds);
    v_posting text;
    v_written boolean;
BEGIN
    IF v_wrong IS NOT NULL THEN RAISE '%', v_wrong USING ERRCODE = 'LD001'; END IF;
    v_posting := set_config('ledger.posting', 'on', true);
    INSERT INTO ledger.transfers (external_ref, payload_hash, template, phase, actor, workflow_id, description, metadata, effective_on,
                                  expires_at, counts_account_id, count_kinds, count_amounts, received_at)
        VALUES (p_ref, p_hash, p_template, p_phase, p_actor, p_workflow_id, p_description, p_metadata,
                coalesce(p_effective_on, (v_received AT TIME ZONE 'UTC')::date), p_expires_at,
                p_counts_account, p_count_kinds, p_count_amounts, v_received)
        ON CONFLICT (external_ref) DO NOTHING RETURNING id INTO transfer_id;
    fresh := FOUND;
    IF NOT fresh THEN
        transfer_id := ledger.find_repeated(p_ref, p_hash, p_template, p_phase, p_relates_to, p_accounts, p_amounts);
    ELSE
        IF p_phase IN ('settle', 'void', 'expire') THEN
            v_holds := ledger.resolve_holds(transfer_id, p_phase, p_relates_to, p_accounts, p_amounts);
        ELSIF p_phase = 'reverse' THEN
            PERFORM ledger.resolve_reversed(transfer_id, p_relates_to[1], p_accounts, p_amounts);
        END IF;
        v_written := ledger.write_legs(transfer_id, p_phase, v_holds, p_accounts, p_amounts);
        IF p_counts_account IS NOT NULL THEN
            PERFORM ledger.count_up(p_counts_account, p_count_kinds, p_count_amounts, p_max_kinds, p_max_windows, p_max_amounts, v_received);
        ELSIF p_phase IN ('void', 'expire') THEN
            PERFORM ledger.count_down(v_holds);
        END IF;
    END IF;
    v_posting := set_config('ledger.posting', 'off', true);
END $$;

-- Counters end: a bucket that is older than its window twice over counts nowhere, and nothing can count there any more.
-- What is released later is given back to nobody then. The second window is for clocks that were wrong.
CREATE INDEX counters_by_age ON ledger.counters (window_s, bucket);
DROP TRIGGER posting_only ON ledger.counters;
CREATE TRIGGER posting_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.counters
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('running sum that ends');
CREATE TRIGGER still_counts BEFORE DELETE ON ledger.counters FOR EACH ROW
    WHEN (OLD.bucket >= clock_timestamp() - make_interval(secs => 2 * OLD.window_s)) EXECUTE FUNCTION ledger.refuse_changes('running sum');

-- Deletes up to p_most buckets of each window and gives how many went. Waits for nobody: a bucket in use stays until next time.
CREATE FUNCTION ledger.prune_counters(p_most int) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_window int; v_gone bigint; v_all bigint := 0;
BEGIN
    PERFORM set_config('ledger.posting', 'pruning', true);
    FOREACH v_window IN ARRAY ledger.counted_windows() LOOP
        DELETE FROM ledger.counters WHERE ctid = ANY (ARRAY(
            SELECT c.ctid FROM ledger.counters c WHERE c.window_s = v_window AND c.bucket < v_now - make_interval(secs => 2 * v_window)
             ORDER BY c.bucket LIMIT p_most FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_gone = ROW_COUNT;
        v_all := v_all + v_gone;
    END LOOP;
    PERFORM set_config('ledger.posting', 'off', true);
    RETURN v_all;
END $$;

-- A reference twice in one batch was one transfer with the legs of both, where they had no account in common (0010).
-- All or nothing: the ids in the order of the items, or LD000 when anything asks for a closer look. The rows are locked.
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

REVOKE ALL ON FUNCTION ledger.is_well_formed, ledger.is_bucket, ledger.find_malformed, ledger.write_legs, ledger.refuse_move,
    ledger.prune_counters FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.prune_counters TO millrace_app;
