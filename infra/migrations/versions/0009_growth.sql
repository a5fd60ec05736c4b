-- Growth: what an operation costs follows from what it touches, not from how long the bank has been open.
--
-- LD406 the clock stands before the last closing: nothing can be posted until it is right again

-- An account's entries by time: for balances and statements of any moment. What has no version needs no place in the
-- index of versions, so an entry of the house costs one index entry there less and one here more.
CREATE INDEX entries_by_time ON ledger.entries (account_id, posted_at);
ALTER TABLE ledger.entries DROP CONSTRAINT one_history;
CREATE UNIQUE INDEX one_history ON ledger.entries (account_id, layer, version) WHERE version IS NOT NULL;

-- What an account had at a moment, so that nobody adds up what was before it. An account gets a row when a hundred
-- entries have come since its last one: a balance of any moment is one row and the entries that follow it.
CREATE TABLE ledger.closing_times (
    at        timestamptz PRIMARY KEY,
    last_seq  bigint NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN ledger.closing_times.last_seq IS 'Of the entries looked at so far: which accounts moved since is found behind it.';
CREATE TABLE ledger.closings (
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    at         timestamptz NOT NULL REFERENCES ledger.closing_times,
    settled    bigint NOT NULL,
    held       bigint NOT NULL,
    PRIMARY KEY (account_id, at)
);
COMMENT ON TABLE ledger.closings IS 'Sums of all entries posted at or before a moment, debit +. Nothing is ever posted there again.';

CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.closing_times
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');
CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.closings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');

-- A clock that is set back behind a closing would post into it.
CREATE FUNCTION ledger.refuse_closed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF clock_timestamp() <= (SELECT max(at) FROM ledger.closing_times) THEN
        RAISE 'the clock of the database stands before the last closing' USING ERRCODE = 'LD406';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER not_in_the_closed_past BEFORE INSERT ON ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_closed();

-- An account's sums, debit +, of entries posted at or before p_at; 'infinity' is now. `cursor` moves with every entry that
-- no closing has taken in yet. Exact for moments that all open transactions are past.
CREATE FUNCTION ledger.sums_at(p_account bigint, p_at timestamptz)
    RETURNS TABLE (settled bigint, held bigint, cursor bigint) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT (coalesce(c.settled, 0) + coalesce(e.settled, 0))::bigint, (coalesce(c.held, 0) + coalesce(e.held, 0))::bigint,
           coalesce(e.cursor, 0)
      FROM (SELECT 1) one
      LEFT JOIN LATERAL (SELECT l.at, l.settled, l.held FROM ledger.closings l
                          WHERE l.account_id = p_account AND l.at <= p_at ORDER BY l.at DESC LIMIT 1) c ON true
      CROSS JOIN LATERAL (SELECT sum(n.amount) FILTER (WHERE n.layer = 0) AS settled,
                                 sum(n.amount) FILTER (WHERE n.layer = 1) AS held, max(n.seq) AS cursor
                            FROM ledger.entries n WHERE n.account_id = p_account
                             AND n.posted_at > coalesce(c.at, '-infinity') AND n.posted_at <= p_at) e $$;

CREATE OR REPLACE FUNCTION ledger.balance_at(p_account bigint, p_at timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT settled FROM ledger.sums_at(p_account, p_at) $$;

-- The last settled version of a locked account before a moment; NULL when there is none. Among the versions of the day before
-- the moment it is the highest, so clocks that were set back by less than a day never bring versions into another order.
CREATE FUNCTION ledger.version_before(p_account bigint, p_moment timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT coalesce(
        (SELECT n.version FROM (SELECT e.version, e.posted_at FROM ledger.entries e
                                 WHERE e.account_id = p_account AND e.layer = 0 AND e.version IS NOT NULL
                                 ORDER BY e.version DESC LIMIT 1) n WHERE n.posted_at < p_moment),
        (SELECT max(e.version + 0) FROM ledger.entries e WHERE e.account_id = p_account AND e.layer = 0
            AND e.posted_at < p_moment AND e.posted_at >= p_moment - interval '1 day'),
        (SELECT e.version FROM ledger.entries e WHERE e.account_id = p_account AND e.layer = 0 AND e.posted_at < p_moment
          ORDER BY e.posted_at DESC, e.version DESC LIMIT 1)) $$;

-- Close the books at p_at, or at the last full hour: gives how many accounts got a closing; NULL when whoever was posting has not
-- ended within five seconds, then nothing is closed. A repeat gives 0. Payments never wait for it.
CREATE FUNCTION ledger.close(p_at timestamptz DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    v_at timestamptz := coalesce(p_at, date_trunc('hour', clock_timestamp() - interval '15 minutes'));
    v_mine xid8;
    v_seq bigint;
    v_count integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'closing must see what the others have committed' USING ERRCODE = 'LD001';
    END IF;
    IF v_at > clock_timestamp() - interval '15 minutes' THEN
        RAISE 'too early to close at %', v_at USING ERRCODE = 'LD001';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ledger.closings'));
    IF v_at <= (SELECT max(at) FROM ledger.closing_times) THEN RETURN 0; END IF;
    -- Who has begun to write may have posted before v_at and not committed yet; who begins from now on posts after it.
    v_mine := pg_current_xact_id();
    FOR v_try IN 0..200 LOOP
        EXIT WHEN pg_snapshot_xmin(pg_current_snapshot()) >= v_mine;
        IF v_try = 200 THEN RETURN NULL; END IF;
        PERFORM pg_sleep(0.025);
    END LOOP;
    SELECT coalesce(max(last_seq), 0) INTO v_seq FROM ledger.closing_times;
    PERFORM set_config('ledger.posting', 'on', true);
    INSERT INTO ledger.closing_times (at, last_seq)
        SELECT v_at, coalesce(max(seq), v_seq) FROM ledger.entries WHERE seq > v_seq AND posted_at <= v_at;
    INSERT INTO ledger.closings (account_id, at, settled, held)
        SELECT m.account_id, v_at, coalesce(c.settled, 0) + e.settled, coalesce(c.held, 0) + e.held
          FROM (SELECT DISTINCT account_id FROM ledger.entries WHERE seq > v_seq) m
          LEFT JOIN LATERAL (SELECT l.at, l.settled, l.held FROM ledger.closings l
                              WHERE l.account_id = m.account_id ORDER BY l.at DESC LIMIT 1) c ON true
          CROSS JOIN LATERAL (SELECT coalesce(sum(n.amount) FILTER (WHERE n.layer = 0), 0) AS settled,
                                     coalesce(sum(n.amount) FILTER (WHERE n.layer = 1), 0) AS held, count(*) AS entries
                                FROM ledger.entries n WHERE n.account_id = m.account_id
                                 AND n.posted_at > coalesce(c.at, '-infinity') AND n.posted_at <= v_at) e
         WHERE e.entries >= 100;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM set_config('ledger.posting', 'off', true);
    RETURN v_count;
END $$;

REVOKE ALL ON FUNCTION ledger.sums_at, ledger.version_before, ledger.close, ledger.refuse_closed FROM PUBLIC;
GRANT SELECT ON ledger.closings, ledger.closing_times TO millrace_app;
GRANT EXECUTE ON FUNCTION ledger.sums_at, ledger.version_before, ledger.close TO millrace_app;

-- Attempts of one invoice are numbered: the last one knows of those before it.
DROP INDEX bank.payments_of_hash;
CREATE INDEX payments_of_hash ON bank.payments (payment_hash, attempt DESC) WHERE payment_hash IS NOT NULL;
-- The newest reconciliation that has ended, for whoever watches.
CREATE INDEX reconciliations_ended ON bank.reconciliations (finished_at DESC) WHERE finished_at IS NOT NULL;
CREATE INDEX cases_open ON bank.cases (kind) WHERE status = 'open';

-- As before, in parts, and with `key`: with created_at it orders the rows of a wallet as the index of each part does, so that a
-- page is read from the ends of a few indexes. For that each part reads one table, and looks up the rest row by row.
CREATE VIEW bank.transactions_paid AS
  SELECT wallet_id, id, 'payment' AS kind, 'out' AS direction, status, amount_msat, fee_msat, memo,
         destination AS counterparty, created_at, settled_at, id AS reference, id AS key
    FROM bank.payments;
CREATE VIEW bank.transactions_paid_by_users AS
  SELECT p.payee_wallet_id AS wallet_id, p.id || '.in' AS id,
         CASE WHEN p.payment_hash IS NULL THEN 'payment' ELSE 'invoice' END AS kind, 'in' AS direction,
         p.status, p.amount_msat, 0::bigint AS fee_msat,
         coalesce((SELECT i.memo FROM bank.invoices i WHERE i.paid_by = p.id), p.memo) AS memo,
         coalesce((SELECT '@' || a.username FROM bank.accounts a WHERE a.id = p.account_id), 'wallet:' || p.wallet_id)
           AS counterparty, p.created_at, p.settled_at,
         coalesce((SELECT i.id FROM bank.invoices i WHERE i.paid_by = p.id), p.id) AS reference, p.id AS key
    FROM bank.payments p
   WHERE p.payee_wallet_id IS NOT NULL;
CREATE VIEW bank.transactions_received AS
  SELECT wallet_id, id || '.in' AS id, 'invoice' AS kind, 'in' AS direction, 'settled' AS status,
         outside_msat AS amount_msat, service_fee_msat AS fee_msat, memo, 'lightning' AS counterparty, outside_at AS created_at,
         outside_at AS settled_at, id AS reference, id AS key
    FROM bank.invoices WHERE outside_msat > 0;
CREATE VIEW bank.transactions_entered AS SELECT a.*, a.reference AS key FROM bank.adjustments a;
CREATE OR REPLACE VIEW bank.transactions AS
  SELECT * FROM bank.transactions_paid UNION ALL
  SELECT * FROM bank.transactions_paid_by_users UNION ALL
  SELECT * FROM bank.transactions_received UNION ALL
  SELECT * FROM bank.transactions_entered;
GRANT SELECT ON bank.transactions_paid, bank.transactions_paid_by_users, bank.transactions_received, bank.transactions_entered TO millrace_app;

-- PostgreSQL looks after a table when a fifth of it has changed: on a large one that is late. Statistics of the first hours
-- decide plans, and pages that are known to be all visible are read from the index alone.
ALTER TABLE ledger.entries SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE ledger.transfers SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE ledger.resolutions SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE ledger.balances SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE bank.payments SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE bank.invoices SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE bank.idempotency_keys SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE bank.nodes SET (fillfactor = 50);
