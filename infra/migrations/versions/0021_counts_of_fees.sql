-- A payment counts all that it holds: amount, routing cap and our fee. What did not leave is given back when it is settled.

-- What was promised and has not left counts no longer: taken from the buckets in which it was counted, whatever the clock says now.
-- Void and expire: all of it. Settle: the share of the hold that did not leave the account, rounded down, so that what stays counted
-- is never less than what left, in any unit. A hold whose first count is not all that it holds counted no fee (before 0021): it keeps
-- its counts.
DROP FUNCTION ledger.count_down(bigint[]);
CREATE FUNCTION ledger.count_down(p_holds bigint[], p_phase text, p_accounts bigint[], p_amounts bigint[]) RETURNS void
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

-- A count that no bigint holds is beyond every limit, and is refused as one.
CREATE FUNCTION ledger.refuse_count(p_account bigint, p_kind text, p_window_s int, p_most bigint, p_used numeric, p_asked bigint)
    RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'limit of % per % s exceeded', p_most, p_window_s USING ERRCODE = 'LD429', DETAIL = jsonb_build_object('account_id', p_account,
        'kind', p_kind, 'window_s', p_window_s, 'limit', p_most, 'used', p_used, 'asked', p_asked)::text;
END $$;

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
        ELSIF v_holds <> '{}' THEN
            PERFORM ledger.count_down(v_holds, p_phase, p_accounts, p_amounts);
        END IF;
    END IF;
    v_posting := set_config('ledger.posting', 'off', true);
END $$;

REVOKE ALL ON FUNCTION ledger.count_down, ledger.refuse_count FROM PUBLIC;
