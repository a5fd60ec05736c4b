-- Limits: the ledger counts and refuses, the bank says how much. And accounts that can be closed for good.
--
-- A posting counts under any number of kinds on one of its accounts, for every window, whether a maximum is in force or not:
-- so a limit set later knows the past. A window is counted in buckets of a 96th of it, so a check adds up at most 98 rows,
-- however long the history is. A bucket that has begun to leave the window still counts: never more than the maximum
-- within any window, and free again a 96th of the window later at the latest.

-- What a transfer counted: one kind until now, any number from now on. No row says anything else than before.
ALTER TABLE ledger.transfers DROP CONSTRAINT velocity_whole;
ALTER TABLE ledger.transfers RENAME COLUMN velocity_account_id TO counts_account_id;
ALTER TABLE ledger.transfers RENAME COLUMN velocity_kind TO count_kinds;
ALTER TABLE ledger.transfers RENAME COLUMN velocity_amount TO count_amounts;
ALTER TABLE ledger.transfers
    ALTER COLUMN count_kinds TYPE text[] USING CASE WHEN count_kinds IS NOT NULL THEN ARRAY[count_kinds] END,
    ALTER COLUMN count_amounts TYPE bigint[] USING CASE WHEN count_amounts IS NOT NULL THEN ARRAY[count_amounts] END,
    ADD CONSTRAINT counts_whole CHECK (num_nulls(counts_account_id, count_kinds, count_amounts) IN (0, 3)
        AND (count_kinds IS NULL OR (phase IN ('post', 'hold') AND cardinality(count_kinds) BETWEEN 1 AND 100
             AND cardinality(count_kinds) = cardinality(count_amounts) AND array_position(count_kinds, NULL) IS NULL
             AND array_position(count_amounts, NULL) IS NULL AND 0 < ALL (count_amounts))));

-- A day, a week, thirty days.
CREATE FUNCTION ledger.counted_windows() RETURNS int[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY[86400, 604800, 2592000];

CREATE FUNCTION ledger.counter_bucket(p_window_s int, p_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(make_interval(secs => p_window_s / 96), p_at, timestamptz '2000-01-01 00:00:00+00');

-- Buckets that begin later than this have something within the window that ends now.
CREATE FUNCTION ledger.window_begin(p_window_s int, p_now timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN p_now - make_interval(secs => p_window_s + p_window_s / 96);

CREATE TABLE ledger.counters (
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    kind       text NOT NULL CHECK (length(kind) BETWEEN 1 AND 200),
    window_s   integer NOT NULL CHECK (window_s = ANY (ledger.counted_windows())),
    bucket     timestamptz NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (account_id, kind, window_s, bucket),
    CONSTRAINT bucket_begins CHECK (bucket = ledger.counter_bucket(window_s, bucket))
) WITH (fillfactor = 70);
COMMENT ON TABLE ledger.counters IS 'What counts against limits: per kind and window, by buckets (bucket = its start). In the unit of the kind.';

INSERT INTO ledger.counters (account_id, kind, window_s, bucket, amount)
    SELECT t.counts_account_id, k.kind, w, ledger.counter_bucket(w, t.received_at), sum(k.amount)
      FROM ledger.transfers t CROSS JOIN LATERAL unnest(t.count_kinds, t.count_amounts) k(kind, amount)
      CROSS JOIN unnest(ledger.counted_windows()) w
     WHERE NOT EXISTS (SELECT FROM ledger.resolutions r JOIN ledger.transfers x ON x.id = r.transfer_id
                        WHERE r.target_id = t.id AND x.phase IN ('void', 'expire')) GROUP BY 1, 2, 3, 4;

CREATE TRIGGER posting_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.counters
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('running sum');

DROP FUNCTION ledger.post, ledger.check_request, ledger.bump_velocity, ledger.give_back_velocity;
DROP TABLE ledger.velocity, ledger.limits;
DROP FUNCTION ledger.velocity_bucket;

-- Further SQLSTATEs:   LD423 account closed   LD424 account not empty, cannot be closed

ALTER TABLE ledger.balances ADD COLUMN closed boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT closed_is_empty CHECK (NOT closed OR (settled = 0 AND held_dr = 0 AND held_cr = 0));
COMMENT ON COLUMN ledger.balances.closed IS 'For good: nothing moves here any more.';

-- For ever. Whoever moves money at the same moment is before it, and then it is not empty, or after it, and is refused.
CREATE FUNCTION ledger.close_account(p_account bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE b ledger.balances;
BEGIN
    PERFORM set_config('ledger.posting', 'on', true);
    SELECT * INTO b FROM ledger.balances WHERE account_id = p_account FOR UPDATE;
    IF NOT FOUND THEN RAISE 'no locked account %', p_account USING ERRCODE = 'LD404'; END IF;
    IF b.settled <> 0 OR b.held_dr <> 0 OR b.held_cr <> 0 THEN
        RAISE 'account % is not empty', p_account USING ERRCODE = 'LD424', DETAIL = jsonb_build_object('balance', b.normal * b.settled,
            'held', CASE b.normal WHEN 1 THEN b.held_cr ELSE b.held_dr END, 'incoming', CASE b.normal WHEN 1 THEN b.held_dr ELSE b.held_cr END)::text;
    END IF;
    UPDATE ledger.balances SET closed = true WHERE account_id = p_account;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;

-- Moves one balance row under its lock, or says why not.
CREATE OR REPLACE FUNCTION ledger.move_balance(p_account bigint, p_normal int, p_phase text, p_settled bigint, p_held_dr bigint, p_held_cr bigint)
    RETURNS ledger.balances LANGUAGE plpgsql AS $$
DECLARE
    b ledger.balances;
    v_change bigint := p_normal * p_settled - CASE p_normal WHEN 1 THEN p_held_cr ELSE p_held_dr END;
BEGIN
    UPDATE ledger.balances SET settled = settled + p_settled, held_dr = held_dr + p_held_dr, held_cr = held_cr + p_held_cr, version = version + 1
     WHERE account_id = p_account AND (floor IS NULL OR available + v_change >= floor) AND NOT closed
       AND NOT (frozen AND v_change < 0 AND p_phase IN ('post', 'hold'))
    RETURNING * INTO b;
    IF FOUND THEN RETURN b; END IF;
    SELECT * INTO b FROM ledger.balances WHERE account_id = p_account;
    IF b.closed THEN
        RAISE 'account % is closed', p_account USING ERRCODE = 'LD423', DETAIL = jsonb_build_object('account_id', p_account)::text;
    ELSIF b.frozen AND v_change < 0 AND p_phase IN ('post', 'hold') THEN
        RAISE 'account % is frozen', p_account USING ERRCODE = 'LD403', DETAIL = jsonb_build_object('account_id', p_account)::text;
    END IF;
    RAISE 'account % has too little available', p_account USING ERRCODE = 'LD402', DETAIL =
        jsonb_build_object('account_id', p_account, 'available', b.available - b.floor, 'needed', -v_change)::text;
END $$;

CREATE FUNCTION ledger.check_request(p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[],
    p_counts_account bigint, p_count_kinds text[]) RETURNS void LANGUAGE plpgsql AS $$
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
    IF p_counts_account IS NOT NULL AND (p_counts_account <> ALL (p_accounts)
       OR (SELECT count(DISTINCT k) FROM unnest(p_count_kinds) k) IS DISTINCT FROM cardinality(p_count_kinds)::bigint) THEN
        RAISE 'what counts against limits counts on an account that has a leg, once per kind' USING ERRCODE = 'LD001';
    END IF;
END $$;

-- Counts, then looks: under the lock of the account's balance row, which the legs have taken. The maxima come from the caller,
-- as (kind, window, most); the first that is exceeded is named. A clock that was set back leaves buckets in the future: they count.
CREATE FUNCTION ledger.count_up(p_account bigint, p_kinds text[], p_amounts bigint[],
    p_max_kinds text[], p_max_windows int[], p_max_amounts bigint[], p_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_now timestamptz := clock_timestamp();
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.balances WHERE account_id = p_account) THEN
        RAISE 'limits need a locked account' USING ERRCODE = 'LD001';
    END IF;
    INSERT INTO ledger.counters AS c (account_id, kind, window_s, bucket, amount)
        SELECT p_account, k.kind, w, ledger.counter_bucket(w, p_at), k.amount
          FROM unnest(p_kinds, p_amounts) k(kind, amount) CROSS JOIN unnest(ledger.counted_windows()) w
        ON CONFLICT (account_id, kind, window_s, bucket) DO UPDATE SET amount = c.amount + excluded.amount;
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

-- What was promised and not paid counts no longer: taken from the buckets in which it was counted, whatever the clock says now.
CREATE FUNCTION ledger.count_down(p_holds bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.counters c SET amount = c.amount - g.amount
      FROM (SELECT t.counts_account_id, k.kind, w, ledger.counter_bucket(w, t.received_at) AS bucket, sum(k.amount) AS amount
              FROM ledger.transfers t CROSS JOIN LATERAL unnest(t.count_kinds, t.count_amounts) k(kind, amount)
              CROSS JOIN unnest(ledger.counted_windows()) w
             WHERE t.id = ANY (p_holds) AND t.count_kinds IS NOT NULL GROUP BY 1, 2, 3, 4) g
     WHERE (c.account_id, c.kind, c.window_s, c.bucket) = (g.counts_account_id, g.kind, g.w, g.bucket);
END $$;

CREATE FUNCTION ledger.post(
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
BEGIN
    PERFORM ledger.check_request(p_phase, p_relates_to, p_accounts, p_amounts, p_counts_account, p_count_kinds);
    PERFORM set_config('ledger.posting', 'on', true);
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
        PERFORM ledger.write_legs(transfer_id, p_phase, v_holds, p_accounts, p_amounts);
        IF p_counts_account IS NOT NULL THEN
            PERFORM ledger.count_up(p_counts_account, p_count_kinds, p_count_amounts, p_max_kinds, p_max_windows, p_max_amounts, v_received);
        ELSIF p_phase IN ('void', 'expire') THEN
            PERFORM ledger.count_down(v_holds);
        END IF;
    END IF;
    PERFORM set_config('ledger.posting', 'off', true);
END $$;

REVOKE ALL ON FUNCTION ledger.counted_windows, ledger.counter_bucket, ledger.window_begin, ledger.check_request, ledger.count_up,
    ledger.count_down, ledger.close_account, ledger.post FROM PUBLIC;
GRANT SELECT ON ledger.counters TO millrace_app;
GRANT EXECUTE ON FUNCTION ledger.post, ledger.set_frozen, ledger.close_account, ledger.window_begin TO millrace_app;

-- The bank's side: what a key may spend, what money is worth elsewhere, and the first limits.

ALTER TABLE bank.api_keys ADD COLUMN spend_limit_sat jsonb
    CHECK (jsonb_typeof(spend_limit_sat) = 'object' AND octet_length(spend_limit_sat::text) <= 200);
COMMENT ON COLUMN bank.api_keys.spend_limit_sat IS 'most that payments by this key may come to: {"day": …, "week": …, "month": …}; NULL: no cap';

CREATE TABLE bank.prices(
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$' AND currency <> 'BTC'),
  price_micro bigint NOT NULL CHECK (price_micro > 0),
  source      text NOT NULL CHECK (char_length(source) BETWEEN 1 AND 100),
  at          timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.prices.price_micro IS 'of one bitcoin, in millionths of the currency; the row with the highest id is the price';
CREATE INDEX prices_of_currency ON bank.prices(currency, id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.prices
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

CREATE INDEX accounts_by_age ON bank.accounts(created_at DESC, id DESC);

INSERT INTO bank.rulebooks(name, version, content, note, set_by)
  SELECT 'limits', 2, jsonb_build_object('levels', jsonb_build_object('0', jsonb_build_object('internal', most, 'lightning', most))),
         'so much that nobody is in the way of it', 'migration'
    FROM (SELECT jsonb_build_object('day_sat', 1000000000, 'week_sat', 3000000000, 'month_sat', 6000000000) AS most) x
   WHERE (SELECT max(version) FROM bank.rulebooks WHERE name = 'limits') = 1;

GRANT SELECT, INSERT ON bank.prices TO millrace_app;
