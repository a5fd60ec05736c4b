-- The only way to write the books: ledger.open_account and ledger.post. One call of post = one whole transfer.
--
-- Safe to repeat: a reference is taken once; the same content again gives the first id and fresh = false.
-- Safe together: the reference first, then the holds it resolves by id, then balance rows by account id, always in that order.
-- Wants READ COMMITTED (each statement sees what the others have committed); under REPEATABLE READ a race ends in 40001.
--
-- LD001 malformed: unbalanced, no legs, zero or double leg     LD409 same reference or code, other content
-- LD002 the legs do not fit the hold or the reversed transfer   LD410 hold already resolved
-- LD402 above_floor: not enough available                       LD411 hold expired: too late to settle
-- LD403 account frozen                                          LD412 hold not due: too early to expire
-- LD404 no such account, hold or transfer                       LD413 already reversed
-- LD405 append-only                                             LD429 limit exceeded
--
-- The planner settings on post answer two habits of PostgreSQL. On near-empty tables it plans foreign-key checks and small
-- joins as sequential scans, and keeps that plan per connection: here only index plans are ever made. And it plans statements
-- with array parameters anew at every call: one generic plan per connection serves, and a call costs a quarter less.

CREATE FUNCTION ledger.open_account(p_code text, p_kind text, p_currency text, p_floor bigint, p_mode text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE v ledger.accounts;
BEGIN
    SELECT * INTO v FROM ledger.accounts WHERE code = p_code;
    IF NOT FOUND THEN
        PERFORM set_config('ledger.posting', 'on', true);
        INSERT INTO ledger.accounts (code, kind, currency, floor, mode) VALUES (p_code, p_kind, p_currency, p_floor, p_mode)
            ON CONFLICT (code) DO NOTHING RETURNING * INTO v;
        IF NOT FOUND THEN  -- someone was quicker, and has committed
            SELECT * INTO v FROM ledger.accounts WHERE code = p_code;
        ELSIF v.mode = 'locked' THEN
            INSERT INTO ledger.balances (account_id, normal, floor) VALUES (v.id, v.normal, v.floor);
        END IF;
        PERFORM set_config('ledger.posting', 'off', true);
    END IF;
    IF (v.kind, v.currency, v.floor, v.mode) IS DISTINCT FROM (p_kind, p_currency, p_floor, p_mode) THEN
        RAISE 'account % exists with other content', p_code USING ERRCODE = 'LD409';
    END IF;
    RETURN v.id;
END $$;

-- For operators: a frozen account can receive, and what was promised before is kept; it can promise and spend nothing new.
CREATE FUNCTION ledger.set_frozen(p_account bigint, p_frozen boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('ledger.posting', 'on', true);
    UPDATE ledger.balances SET frozen = p_frozen WHERE account_id = p_account;
    IF NOT FOUND THEN RAISE 'no locked account %', p_account USING ERRCODE = 'LD404'; END IF;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;

CREATE FUNCTION ledger.check_request(p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[],
    p_velocity_account bigint, p_velocity_amount bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_legs int := cardinality(p_accounts);
    v_related int := cardinality(p_relates_to);
BEGIN
    IF v_legs IS NULL OR v_related IS NULL OR v_legs IS DISTINCT FROM cardinality(p_amounts) OR v_legs > 5000 OR v_related > 1000
       OR array_position(p_accounts, NULL) IS NOT NULL OR array_position(p_amounts, NULL) IS NOT NULL OR 0 = ANY (p_amounts)
       OR (SELECT count(DISTINCT a) FROM unnest(p_accounts) a) <> v_legs THEN
        RAISE 'legs are missing, zero, double or too many' USING ERRCODE = 'LD001';
    END IF;
    IF NOT coalesce(CASE WHEN p_phase IN ('post', 'hold')    THEN v_legs >= 2 AND v_related = 0
                         WHEN p_phase = 'settle'             THEN v_legs >= 2 AND v_related >= 1
                         WHEN p_phase = 'reverse'            THEN v_legs >= 2 AND v_related = 1
                         WHEN p_phase IN ('void', 'expire')  THEN v_legs = 0 AND v_related >= 1 END, false) THEN
        RAISE 'phase % cannot have % legs and relate to % transfers', p_phase, v_legs, v_related USING ERRCODE = 'LD001';
    END IF;
    IF p_velocity_account IS NOT NULL AND NOT EXISTS (SELECT FROM unnest(p_accounts, p_amounts) l(a, m)
            WHERE l.a = p_velocity_account AND p_velocity_amount <= abs(l.m)) THEN
        RAISE 'what counts against a limit must be part of a leg' USING ERRCODE = 'LD001';
    END IF;
END $$;

-- The hash is the caller's word; legs and relations are the fact. Both must agree with what is in the books.
CREATE FUNCTION ledger.find_repeated(p_ref text, p_hash bytea, p_template text, p_phase text, p_relates_to text[],
    p_accounts bigint[], p_amounts bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v ledger.transfers;
BEGIN
    SELECT * INTO STRICT v FROM ledger.transfers WHERE external_ref = p_ref;
    IF v.payload_hash IS DISTINCT FROM p_hash OR v.template IS DISTINCT FROM p_template OR v.phase IS DISTINCT FROM p_phase
       OR EXISTS (SELECT FROM unnest(p_accounts, p_amounts) l(a, m) FULL JOIN
                      (SELECT account_id, amount FROM ledger.entries
                        WHERE transfer_id = v.id AND layer = (v.phase = 'hold')::int AND v.phase NOT IN ('void', 'expire')) e
                      ON e.account_id = l.a WHERE e.amount IS DISTINCT FROM l.m)
       OR EXISTS (SELECT FROM unnest(p_relates_to) g(ref) FULL JOIN
                      (SELECT t.external_ref FROM ledger.resolutions r JOIN ledger.transfers t ON t.id = r.target_id WHERE r.transfer_id = v.id) o
                      ON o.external_ref = g.ref WHERE o.external_ref IS DISTINCT FROM g.ref) THEN
        RAISE 'reference % was used for another transfer', p_ref
            USING ERRCODE = 'LD409', DETAIL = jsonb_build_object('reference', p_ref, 'transfer_id', v.id)::text;
    END IF;
    RETURN v.id;
END $$;

-- Settle, void or expire: takes each hold once, whoever races, and returns their ids.
CREATE FUNCTION ledger.resolve_holds(p_transfer bigint, p_phase text, p_refs text[], p_accounts bigint[], p_amounts bigint[])
    RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_holds bigint[]; v_taken bigint[];
    v_first_expiry timestamptz; v_last_expiry timestamptz; v_without_expiry boolean;
BEGIN
    SELECT coalesce(array_agg(t.id ORDER BY t.id), '{}'), min(t.expires_at), max(t.expires_at), bool_or(t.expires_at IS NULL)
        INTO v_holds, v_first_expiry, v_last_expiry, v_without_expiry
        FROM ledger.transfers t WHERE t.external_ref = ANY (p_refs) AND t.phase = 'hold';
    IF cardinality(v_holds) <> cardinality(p_refs) THEN
        RAISE 'no such hold among %', p_refs USING ERRCODE = 'LD404';
    END IF;
    WITH taken AS (INSERT INTO ledger.resolutions (target_id, transfer_id) SELECT h, p_transfer FROM unnest(v_holds) h ORDER BY h
                   ON CONFLICT (target_id) DO NOTHING RETURNING target_id)
        SELECT coalesce(array_agg(target_id), '{}') INTO v_taken FROM taken;
    IF cardinality(v_taken) <> cardinality(v_holds) THEN
        RAISE 'hold already resolved' USING ERRCODE = 'LD410', DETAIL = (
            SELECT jsonb_build_object('hold', h.external_ref, 'resolved_by', t.external_ref, 'phase', t.phase)::text
              FROM ledger.resolutions r JOIN ledger.transfers h ON h.id = r.target_id JOIN ledger.transfers t ON t.id = r.transfer_id
             WHERE r.target_id = ANY (v_holds) AND r.transfer_id <> p_transfer ORDER BY h.id LIMIT 1);
    END IF;
    IF p_phase = 'expire' AND (v_without_expiry OR v_last_expiry > clock_timestamp()) THEN
        RAISE 'a hold is not due to expire' USING ERRCODE = 'LD412';
    ELSIF p_phase = 'settle' AND v_first_expiry <= clock_timestamp() THEN
        RAISE 'a hold has expired and can no longer be settled' USING ERRCODE = 'LD411';
    ELSIF p_phase = 'settle' THEN
        PERFORM ledger.check_settlement(v_holds, p_accounts, p_amounts);
    END IF;
    RETURN v_holds;
END $$;

-- What is settled lies within what was held: same direction, not more; every hold is used; no one else with a floor pays.
CREATE FUNCTION ledger.check_settlement(p_holds bigint[], p_accounts bigint[], p_amounts bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_account bigint;
BEGIN
    SELECT l.a INTO v_account
      FROM unnest(p_accounts, p_amounts) l(a, m) JOIN ledger.accounts a ON a.id = l.a
      LEFT JOIN (SELECT e.account_id, sum(e.amount) AS amount FROM ledger.entries e
                  WHERE e.transfer_id = ANY (p_holds) AND e.layer = 1 GROUP BY 1) h ON h.account_id = l.a
     WHERE CASE WHEN h.amount IS NULL THEN a.floor IS NOT NULL AND a.normal * l.m < 0
                ELSE sign(l.m) <> sign(h.amount) OR abs(l.m) > abs(h.amount) END LIMIT 1;
    IF FOUND THEN
        RAISE 'settles more than was held' USING ERRCODE = 'LD002', DETAIL = jsonb_build_object('account_id', v_account)::text;
    END IF;
    IF EXISTS (SELECT FROM unnest(p_holds) h WHERE NOT EXISTS
                  (SELECT FROM ledger.entries e WHERE e.transfer_id = h AND e.layer = 1 AND e.account_id = ANY (p_accounts))) THEN
        RAISE 'settles nothing of one of its holds' USING ERRCODE = 'LD002';
    END IF;
END $$;

-- A reversal takes back, in part or whole, once. What cannot be taken back may only become an expense.
CREATE FUNCTION ledger.resolve_reversed(p_transfer bigint, p_ref text, p_accounts bigint[], p_amounts bigint[]) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE v_target bigint;
BEGIN
    SELECT t.id INTO v_target FROM ledger.transfers t WHERE t.external_ref = p_ref AND t.phase IN ('post', 'settle');
    IF NOT FOUND THEN RAISE 'nothing to reverse under %', p_ref USING ERRCODE = 'LD404'; END IF;
    INSERT INTO ledger.resolutions (target_id, transfer_id) VALUES (v_target, p_transfer) ON CONFLICT (target_id) DO NOTHING;
    IF NOT FOUND THEN RAISE '% is already reversed', p_ref USING ERRCODE = 'LD413'; END IF;
    IF EXISTS (SELECT FROM unnest(p_accounts, p_amounts) l(a, m) JOIN ledger.accounts a ON a.id = l.a
               LEFT JOIN ledger.entries e ON e.transfer_id = v_target AND e.account_id = l.a AND e.layer = 0
               WHERE CASE WHEN e.amount IS NULL THEN a.kind <> 'expense'
                          ELSE sign(l.m) = sign(e.amount) OR abs(l.m) > abs(e.amount) END) THEN
        RAISE 'reverses more than there was' USING ERRCODE = 'LD002';
    END IF;
END $$;

-- Moves one balance row under its lock, or says why not.
CREATE FUNCTION ledger.move_balance(p_account bigint, p_normal int, p_phase text, p_settled bigint, p_held_dr bigint, p_held_cr bigint)
    RETURNS ledger.balances LANGUAGE plpgsql AS $$
DECLARE
    b ledger.balances;
    v_change bigint := p_normal * p_settled - CASE p_normal WHEN 1 THEN p_held_cr ELSE p_held_dr END;
BEGIN
    UPDATE ledger.balances SET settled = settled + p_settled, held_dr = held_dr + p_held_dr, held_cr = held_cr + p_held_cr, version = version + 1
     WHERE account_id = p_account AND (floor IS NULL OR available + v_change >= floor)
       AND NOT (frozen AND v_change < 0 AND p_phase IN ('post', 'hold'))
    RETURNING * INTO b;
    IF FOUND THEN RETURN b; END IF;
    SELECT * INTO b FROM ledger.balances WHERE account_id = p_account;
    IF b.frozen AND v_change < 0 AND p_phase IN ('post', 'hold') THEN
        RAISE 'account % is frozen', p_account USING ERRCODE = 'LD403', DETAIL = jsonb_build_object('account_id', p_account)::text;
    END IF;
    RAISE 'account % has too little available', p_account USING ERRCODE = 'LD402', DETAIL =
        jsonb_build_object('account_id', p_account, 'available', b.available - b.floor, 'needed', -v_change)::text;
END $$;

-- Counts towards the limits of an account, under the lock of its balance row. Windows roll by quarters of an hour, and a quarter
-- that has begun to leave the window still counts: never more than the limit within any window.
CREATE FUNCTION ledger.bump_velocity(p_account bigint, p_kind text, p_amount bigint, p_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.balances WHERE account_id = p_account) THEN
        RAISE 'limits need a locked account' USING ERRCODE = 'LD001';
    END IF;
    INSERT INTO ledger.velocity AS v (account_id, kind, bucket, amount) VALUES (p_account, p_kind, ledger.velocity_bucket(p_at), p_amount)
        ON CONFLICT (account_id, kind, bucket) DO UPDATE SET amount = v.amount + excluded.amount;
    FOR r IN
        SELECT l.window_s, l.max_amount, (SELECT sum(v.amount) FROM ledger.velocity v WHERE v.account_id = p_account AND v.kind = p_kind
                 AND v.bucket > clock_timestamp() - make_interval(secs => l.window_s) - interval '15 minutes') AS used
          FROM ledger.limits l WHERE l.account_id = p_account AND l.kind = p_kind ORDER BY l.window_s
    LOOP
        IF r.used > r.max_amount THEN
            RAISE 'limit of % per % s exceeded', r.max_amount, r.window_s USING ERRCODE = 'LD429', DETAIL = jsonb_build_object('account_id', p_account,
                'kind', p_kind, 'window_s', r.window_s, 'limit', r.max_amount, 'used', r.used - p_amount, 'asked', p_amount)::text;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION ledger.velocity_bucket(p_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(interval '15 minutes', p_at, timestamptz '2000-01-01 00:00:00+00');

CREATE FUNCTION ledger.give_back_velocity(p_holds bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.velocity v SET amount = v.amount - g.amount
      FROM (SELECT t.velocity_account_id, t.velocity_kind, ledger.velocity_bucket(t.received_at) AS bucket, sum(t.velocity_amount) AS amount
              FROM ledger.transfers t WHERE t.id = ANY (p_holds) AND t.velocity_kind IS NOT NULL GROUP BY 1, 2, 3) g
     WHERE (v.account_id, v.kind, v.bucket) = (g.velocity_account_id, g.velocity_kind, g.bucket);
END $$;

-- Moves all balances in the order of account ids and writes the legs in one statement.
CREATE FUNCTION ledger.write_legs(p_transfer bigint, p_phase text, p_holds bigint[], p_accounts bigint[], p_amounts bigint[])
    RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record; b ledger.balances; v_given int := 0; v_sign int := 1; v_layer smallint := 0;
    v_layers smallint[]; v_accounts bigint[] := p_accounts; v_amounts bigint[] := p_amounts;
    ea bigint[] := '{}'; ec text[] := '{}'; el smallint[] := '{}'; em bigint[] := '{}'; eb bigint[] := '{}'; ev bigint[] := '{}';
BEGIN
    IF p_phase = 'hold' THEN v_layer := 1; END IF;
    v_layers := array_fill(v_layer, ARRAY[cardinality(p_accounts)]);
    IF cardinality(p_holds) > 0 THEN
        v_sign := -1;
        SELECT v_accounts || array_agg(e.account_id), v_amounts || array_agg(-e.amount), v_layers || array_agg(1::smallint)
          INTO v_accounts, v_amounts, v_layers FROM ledger.entries e WHERE e.transfer_id = ANY (p_holds) AND e.layer = 1;
    END IF;
    FOR r IN
        SELECT a.id, a.currency, a.normal, a.mode, count(*) FILTER (WHERE l.layer = v_layer) AS given,
               coalesce(sum(l.m) FILTER (WHERE l.layer = 0), 0)::bigint AS settled,
               coalesce(sum(greatest(l.m * v_sign, 0)) FILTER (WHERE l.layer = 1), 0)::bigint * v_sign AS held_dr,
               coalesce(sum(greatest(-l.m * v_sign, 0)) FILTER (WHERE l.layer = 1), 0)::bigint * v_sign AS held_cr
          FROM unnest(v_accounts, v_amounts, v_layers) l(a, m, layer) JOIN ledger.accounts a ON a.id = l.a
         GROUP BY a.id, a.currency, a.normal, a.mode ORDER BY a.id
    LOOP
        v_given := v_given + r.given;
        b := NULL;
        IF r.mode = 'locked' THEN
            b := ledger.move_balance(r.id, r.normal, p_phase, r.settled, r.held_dr, r.held_cr);
        END IF;
        IF r.held_dr <> 0 AND r.held_cr <> 0 THEN
            RAISE 'holds in both directions on account % cannot be resolved together', r.id USING ERRCODE = 'LD001';
        END IF;
        IF r.settled <> 0 THEN
            ea := ea || r.id; ec := ec || r.currency; el := el || 0::smallint; em := em || r.settled; eb := eb || b.settled; ev := ev || b.version;
        END IF;
        IF r.held_dr <> r.held_cr THEN
            ea := ea || r.id; ec := ec || r.currency; el := el || 1::smallint; em := em || (r.held_dr - r.held_cr);
            eb := eb || (b.held_dr - b.held_cr); ev := ev || b.version;
        END IF;
    END LOOP;
    IF v_given <> cardinality(p_accounts) THEN RAISE 'a leg names no account' USING ERRCODE = 'LD404'; END IF;
    INSERT INTO ledger.entries (transfer_id, account_id, currency, layer, amount, balance_after, version, posted_at)
        SELECT p_transfer, x.a, x.c, x.l, x.m, x.b, x.v, t.now
          FROM (SELECT clock_timestamp() AS now OFFSET 0) t, unnest(ea, ec, el, em, eb, ev) x(a, c, l, m, b, v);
END $$;

CREATE FUNCTION ledger.post(
    p_ref text, p_hash bytea, p_template text, p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[], p_actor text,
    p_workflow_id text DEFAULT NULL, p_description text DEFAULT NULL, p_metadata jsonb DEFAULT '{}', p_effective_on date DEFAULT NULL,
    p_expires_at timestamptz DEFAULT NULL, p_velocity_account bigint DEFAULT NULL, p_velocity_kind text DEFAULT NULL,
    p_velocity_amount bigint DEFAULT NULL, OUT transfer_id bigint, OUT fresh boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    v_received timestamptz := clock_timestamp();
    v_holds bigint[] := '{}';
BEGIN
    PERFORM ledger.check_request(p_phase, p_relates_to, p_accounts, p_amounts, p_velocity_account, p_velocity_amount);
    PERFORM set_config('ledger.posting', 'on', true);
    INSERT INTO ledger.transfers (external_ref, payload_hash, template, phase, actor, workflow_id, description, metadata, effective_on,
                                  expires_at, velocity_account_id, velocity_kind, velocity_amount, received_at)
        VALUES (p_ref, p_hash, p_template, p_phase, p_actor, p_workflow_id, p_description, p_metadata,
                coalesce(p_effective_on, (v_received AT TIME ZONE 'UTC')::date), p_expires_at,
                p_velocity_account, p_velocity_kind, p_velocity_amount, v_received)
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
        PERFORM ledger.write_legs(transfer_id, p_phase, v_holds, p_accounts, p_amounts);
        IF p_velocity_account IS NOT NULL THEN
            PERFORM ledger.bump_velocity(p_velocity_account, p_velocity_kind, p_velocity_amount, v_received);
        ELSIF p_phase IN ('void', 'expire') THEN
            PERFORM ledger.give_back_velocity(v_holds);
        END IF;
    END IF;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;

-- In the currency's smallest unit, debit +, for entries posted at or before p_at. Exact for moments that all open transactions are past.
CREATE FUNCTION ledger.balance_at(p_account bigint, p_at timestamptz) RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(amount), 0)::bigint FROM ledger.entries WHERE account_id = p_account AND layer = 0 AND posted_at <= p_at $$;

CREATE VIEW ledger.trial_balance AS
    SELECT a.id AS account_id, a.currency, a.kind, a.code,
           coalesce(sum(e.amount) FILTER (WHERE e.layer = 0), 0) AS settled, coalesce(sum(e.amount) FILTER (WHERE e.layer = 1), 0) AS held
      FROM ledger.accounts a LEFT JOIN ledger.entries e ON e.account_id = a.id GROUP BY a.id;

REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO millrace_app;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO millrace_app;
GRANT EXECUTE ON FUNCTION ledger.post, ledger.open_account, ledger.balance_at TO millrace_app;
