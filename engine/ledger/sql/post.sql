-- Books one transfer: legs, balances, counts and resolved holds, all or nothing. With post_batch the only way to write entries.
--
-- Idempotent: a reference is taken once. The same content again returns the first id with fresh = false.
-- Lock order, always: the reference, then the holds that it resolves by id, then balance rows by account id.
-- Needs READ COMMITTED: each statement sees what others have committed. Under REPEATABLE READ a race ends in 40001.
--
-- LD001 malformed: unbalanced, no legs, a zero or double leg   LD410 hold already resolved
-- LD002 legs do not fit the hold or the reversed transfer      LD411 hold expired: too late to settle
-- LD402 not enough available                                   LD412 hold not due: too early to expire
-- LD403 account frozen                                         LD413 already reversed
-- LD404 no such account, hold or transfer                      LD423 account closed
-- LD405 append-only                                            LD424 account not empty (close_account)
-- LD406 the clock stands before the last closing               LD429 limit exceeded
-- LD409 same reference or code, other content
--
-- The planner settings: on near-empty tables PostgreSQL plans foreign-key checks and small joins as sequential scans and keeps
-- that plan for the connection, so only index plans are allowed. It also plans statements with array parameters anew at each
-- call: one generic plan per connection costs a quarter less per call.
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
