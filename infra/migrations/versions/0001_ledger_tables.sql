-- The books: tables, and the rules that hold whoever writes.
-- Amounts are signed bigints: debit +, credit -. Layer 0 = settled (what happened), layer 1 = held (what is promised).
-- Nothing here is updated or deleted but the running sums (balances, velocity) and the limits an administrator sets.

CREATE SCHEMA ledger;

CREATE TABLE ledger.accounts (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9:_.@-]{0,127}$'),
    kind      text NOT NULL CHECK (kind IN ('asset', 'liability', 'equity', 'income', 'expense')),
    currency  text NOT NULL CHECK (currency ~ '^[A-Z]{3,5}$'),
    normal    smallint NOT NULL GENERATED ALWAYS AS (CASE WHEN kind IN ('asset', 'expense') THEN 1 ELSE -1 END) STORED,
    floor     bigint,
    mode      text NOT NULL CHECK (mode IN ('locked', 'append')),
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (id, currency),
    CONSTRAINT floor_needs_a_row CHECK (mode = 'locked' OR floor IS NULL),
    CONSTRAINT users_have_a_floor CHECK (code NOT LIKE 'liab:user:%' OR (kind = 'liability' AND floor IS NOT DISTINCT FROM 0))
);
COMMENT ON COLUMN ledger.accounts.mode IS
    'locked: one balance row, updated under its lock, with a gapless history. append: entries only, for accounts that every payment touches.';

CREATE TABLE ledger.balances (
    account_id bigint PRIMARY KEY REFERENCES ledger.accounts,
    normal     smallint NOT NULL,
    floor      bigint,
    settled    bigint NOT NULL DEFAULT 0,
    held_dr    bigint NOT NULL DEFAULT 0 CHECK (held_dr >= 0),
    held_cr    bigint NOT NULL DEFAULT 0 CHECK (held_cr >= 0),
    available  bigint NOT NULL GENERATED ALWAYS AS (normal * settled - CASE normal WHEN 1 THEN held_cr ELSE held_dr END) STORED,
    version    bigint NOT NULL DEFAULT 0,
    frozen     boolean NOT NULL DEFAULT false,
    CONSTRAINT above_floor CHECK (available >= floor)  -- no floor (NULL) passes
) WITH (fillfactor = 50);
COMMENT ON COLUMN ledger.balances.available IS 'In the account''s normal direction, less all that is held against it.';

CREATE TABLE ledger.transfers (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    external_ref        text NOT NULL CONSTRAINT one_transfer_per_fact UNIQUE CHECK (length(external_ref) BETWEEN 1 AND 200),
    payload_hash        bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
    template            text NOT NULL CHECK (length(template) BETWEEN 1 AND 200),
    phase               text NOT NULL CHECK (phase IN ('post', 'hold', 'settle', 'void', 'expire', 'reverse')),
    actor               text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
    workflow_id         text CHECK (length(workflow_id) <= 500),
    description         text CHECK (length(description) <= 1000),
    metadata            jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object' AND octet_length(metadata::text) <= 8192),
    effective_on        date NOT NULL,
    expires_at          timestamptz,
    velocity_account_id bigint REFERENCES ledger.accounts,
    velocity_kind       text,
    velocity_amount     bigint,
    received_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT only_holds_expire CHECK (expires_at IS NULL OR phase = 'hold'),
    CONSTRAINT not_in_the_future CHECK (effective_on <= (received_at AT TIME ZONE 'UTC')::date),
    CONSTRAINT velocity_whole CHECK (num_nulls(velocity_account_id, velocity_kind, velocity_amount) IN (0, 3)
        AND (velocity_kind IS NULL OR (phase IN ('post', 'hold') AND velocity_amount > 0)))
);
COMMENT ON COLUMN ledger.transfers.received_at IS
    'When the ledger took it in hand, before it waited for locks. The moment it counts is posted_at of its entries.';
CREATE INDEX holds_due ON ledger.transfers (expires_at) WHERE expires_at IS NOT NULL;

-- A hold is open, and a post or settle stands, as long as no row here names it: settled, voided, expired or reversed at most once.
CREATE TABLE ledger.resolutions (
    target_id   bigint CONSTRAINT one_resolution PRIMARY KEY REFERENCES ledger.transfers,
    transfer_id bigint NOT NULL REFERENCES ledger.transfers,
    CHECK (target_id <> transfer_id)
);
CREATE INDEX resolved_by ON ledger.resolutions (transfer_id);

CREATE TABLE ledger.entries (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer_id   bigint NOT NULL REFERENCES ledger.transfers,
    account_id    bigint NOT NULL,
    currency      text NOT NULL,
    layer         smallint NOT NULL CHECK (layer IN (0, 1)),
    amount        bigint NOT NULL CHECK (amount <> 0),
    balance_after bigint,
    version       bigint CHECK (version > 0),
    posted_at     timestamptz NOT NULL,
    CONSTRAINT one_leg_per_account UNIQUE (transfer_id, account_id, layer),
    CONSTRAINT one_history UNIQUE (account_id, layer, version),
    CONSTRAINT one_currency FOREIGN KEY (account_id, currency) REFERENCES ledger.accounts (id, currency),
    CONSTRAINT version_with_balance CHECK (num_nulls(balance_after, version) IN (0, 2))
);
COMMENT ON COLUMN ledger.entries.balance_after IS 'Of a locked account: settled (layer 0), or held debits less held credits (layer 1), after this entry.';

CREATE TABLE ledger.limits (
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    kind       text NOT NULL CHECK (length(kind) BETWEEN 1 AND 200),
    window_s   integer NOT NULL CHECK (window_s BETWEEN 900 AND 31 * 86400),
    max_amount bigint NOT NULL CHECK (max_amount >= 0),
    PRIMARY KEY (account_id, kind, window_s)
);

CREATE TABLE ledger.velocity (
    account_id bigint NOT NULL REFERENCES ledger.accounts,
    kind       text NOT NULL CHECK (length(kind) BETWEEN 1 AND 200),
    bucket     timestamptz NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (account_id, kind, bucket)
) WITH (fillfactor = 70);
COMMENT ON TABLE ledger.velocity IS 'What counts against limits, by quarter of an hour (bucket = its start).';

-- Append-only, and written by the ledger's own functions only, which set ledger.posting while they write. This stops every accident, the owner's too. An owner who means it can drop a trigger; the checks of the books tell.
CREATE FUNCTION ledger.refuse_changes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') OR (TG_OP = 'UPDATE' AND TG_ARGV[0] = 'append-only') THEN
        RAISE '% in ledger.% refused: the books are append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    ELSIF current_setting('ledger.posting', true) IS DISTINCT FROM 'on' THEN
        RAISE '% in ledger.% refused: only the functions of the ledger write here', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');
CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');
CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');
CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('append-only');
CREATE TRIGGER posting_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.balances
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('running sum');
CREATE TRIGGER posting_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.velocity
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('running sum');

-- Legs come all at once: balanced per currency and layer, and nothing of the same transfer before or after them.
CREATE FUNCTION ledger.check_legs() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (SELECT FROM new_legs GROUP BY transfer_id, currency, layer HAVING sum(amount) <> 0) THEN
        RAISE 'unbalanced: the legs do not sum to zero per currency and layer' USING ERRCODE = 'LD001';
    END IF;
    IF (SELECT count(*) FROM new_legs) <>
       (SELECT count(*) FROM ledger.entries e JOIN (SELECT DISTINCT transfer_id FROM new_legs) n USING (transfer_id)) THEN
        RAISE 'legs added to a transfer that has its legs' USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON ledger.entries REFERENCING NEW TABLE AS new_legs
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_legs();

CREATE FUNCTION ledger.check_transfer() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF (SELECT count(*) FROM ledger.entries WHERE transfer_id = NEW.id) < 2 THEN
        RAISE 'transfer % has no legs', NEW.external_ref USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER has_legs AFTER INSERT ON ledger.transfers DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger.check_transfer();
