-- Schema "bank": who our users are and what they asked for. The money itself is in schema "ledger".
CREATE SCHEMA bank;

CREATE TABLE bank.accounts(
  id          text PRIMARY KEY,
  username    text CHECK (username ~ '^[0-9A-Za-z_]{3,50}$' AND username ~ '[A-Za-z]' AND username !~* '^(1|3|bc1|lnbc1)'),
  external_id text UNIQUE CHECK (char_length(external_id) BETWEEN 1 AND 255),
  level       smallint NOT NULL DEFAULT 0 CHECK (level BETWEEN 0 AND 9),
  status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'locked', 'closed')),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE UNIQUE INDEX username_whatever_the_case ON bank.accounts(lower(username));

CREATE TABLE bank.wallets(
  id                text PRIMARY KEY,
  account_id        text NOT NULL REFERENCES bank.accounts,
  currency          text NOT NULL CHECK (currency = 'BTC'),
  ledger_account_id bigint NOT NULL UNIQUE REFERENCES ledger.accounts(id),
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (account_id, currency));

CREATE TABLE bank.api_keys(
  id          text PRIMARY KEY,
  account_id  text NOT NULL REFERENCES bank.accounts,
  name        text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
  scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'receive', 'send', 'admin']),
  secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at  timestamptz,
  revoked_at  timestamptz);
CREATE INDEX api_keys_of_account ON bank.api_keys(account_id, created_at);

-- No reference to accounts: the bootstrap administrator uses keys too and has none.
CREATE TABLE bank.idempotency_keys(
  account_id  text NOT NULL,
  key         text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
  body_hash   bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  resource_id text,
  refusal     jsonb,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (account_id, key),
  CHECK ((resource_id IS NULL) <> (refusal IS NULL)));

CREATE TABLE bank.nodes(
  name          text PRIMARY KEY,
  pubkey        text NOT NULL UNIQUE CHECK (pubkey ~ '^0[23][0-9a-f]{64}$'),
  settle_index  bigint NOT NULL DEFAULT 0 CHECK (settle_index >= 0),
  outbound_msat bigint NOT NULL DEFAULT 0 CHECK (outbound_msat >= 0),
  reported_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  adopted_at    timestamptz NOT NULL DEFAULT clock_timestamp());

CREATE TABLE bank.payments(
  id              text PRIMARY KEY,
  account_id      text NOT NULL REFERENCES bank.accounts,
  wallet_id       text NOT NULL REFERENCES bank.wallets,
  kind            text NOT NULL CHECK (kind IN ('internal', 'lightning')),
  status          text NOT NULL CHECK (status IN ('pending', 'settled', 'failed')),
  destination     text NOT NULL,
  amount_msat     bigint NOT NULL CHECK (amount_msat > 0),
  fee_msat        bigint NOT NULL DEFAULT 0 CHECK (fee_msat >= 0),
  max_fee_msat    bigint NOT NULL CHECK (max_fee_msat >= 0),
  payment_hash    text CHECK (payment_hash ~ '^[0-9a-f]{64}$'),
  preimage        text CHECK (preimage ~ '^[0-9a-f]{64}$'),
  bolt11          text,
  amount_in_invoice boolean NOT NULL DEFAULT false,
  memo            text CHECK (octet_length(memo) <= 639),
  external_id     text CHECK (char_length(external_id) BETWEEN 1 AND 255),
  payee_wallet_id text REFERENCES bank.wallets,
  node            text REFERENCES bank.nodes,
  attempt         int CHECK (attempt > 0),
  known_payment_index bigint NOT NULL DEFAULT 0,
  payment_index   bigint NOT NULL DEFAULT 0,
  failure_code    text,
  failure_detail  text,
  workflow_id     text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_at      timestamptz,
  CHECK ((status = 'settled') = (settled_at IS NOT NULL)),
  CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
  CHECK (fee_msat <= max_fee_msat),
  CHECK (kind = 'internal' OR (node IS NOT NULL AND attempt IS NOT NULL
         AND payment_hash IS NOT NULL AND bolt11 IS NOT NULL)),
  CHECK (kind = 'lightning' OR (payee_wallet_id IS NOT NULL AND payee_wallet_id <> wallet_id AND status = 'settled')));
-- One invoice is paid once, by whomever: the database refuses the second live payment of a hash.
CREATE UNIQUE INDEX one_live_payment_of_a_hash ON bank.payments(payment_hash) WHERE status IN ('pending', 'settled');
CREATE INDEX payments_of_hash ON bank.payments(payment_hash) WHERE payment_hash IS NOT NULL;
CREATE INDEX payments_of_account ON bank.payments(account_id, created_at DESC, id DESC);
CREATE INDEX payments_of_wallet ON bank.payments(wallet_id, created_at DESC, id DESC);
CREATE INDEX payments_to_wallet ON bank.payments(payee_wallet_id, created_at DESC, id DESC) WHERE payee_wallet_id IS NOT NULL;
CREATE INDEX payments_in_flight ON bank.payments(node, id) WHERE status = 'pending';

CREATE TABLE bank.invoices(
  id               text PRIMARY KEY,
  account_id       text NOT NULL REFERENCES bank.accounts,
  wallet_id        text NOT NULL REFERENCES bank.wallets,
  node             text NOT NULL,
  bolt11           text NOT NULL,
  payment_hash     text NOT NULL UNIQUE CHECK (payment_hash ~ '^[0-9a-f]{64}$'),
  amount_msat      bigint CHECK (amount_msat > 0),
  received_msat    bigint NOT NULL DEFAULT 0 CHECK (received_msat >= 0),
  status           text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'settled', 'expired', 'cancelled')),
  memo             text CHECK (octet_length(memo) <= 639),
  description_hash text CHECK (description_hash ~ '^[0-9a-f]{64}$'),
  external_id      text CHECK (char_length(external_id) BETWEEN 1 AND 255),
  paid_by          text UNIQUE REFERENCES bank.payments,
  outside_msat     bigint NOT NULL DEFAULT 0 CHECK (outside_msat >= 0),
  outside_at       timestamptz,
  expires_at       timestamptz NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_at       timestamptz,
  CHECK ((status = 'settled') = (settled_at IS NOT NULL)),
  CHECK ((status = 'settled') = (received_msat > 0)),
  CHECK ((outside_msat > 0) = (outside_at IS NOT NULL)),
  CHECK (paid_by IS NOT NULL OR received_msat = outside_msat),
  UNIQUE (account_id, external_id));
COMMENT ON COLUMN bank.invoices.outside_msat IS 'what of received_msat came over Lightning; beside paid_by it means paid twice';
CREATE INDEX invoices_of_account ON bank.invoices(account_id, created_at DESC, id DESC);
CREATE INDEX invoices_received_by_wallet ON bank.invoices(wallet_id, outside_at DESC, id DESC) WHERE outside_msat > 0;
CREATE INDEX invoices_open ON bank.invoices(node, id) WHERE status = 'open';

-- Notes "settled in the ledger: cancel it at the node", written with the settlement, worked off by the node's pump.
CREATE TABLE bank.node_cancellations(
  payment_hash text PRIMARY KEY REFERENCES bank.invoices(payment_hash),
  node         text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  done_at      timestamptz);
CREATE INDEX node_cancellations_due ON bank.node_cancellations(node, created_at) WHERE done_at IS NULL;

-- What moved in a wallet, one row per business event, to be read newest first by (created_at, id).
CREATE VIEW bank.transactions AS
  SELECT wallet_id, id, 'payment' AS kind, 'out' AS direction, status, amount_msat, fee_msat, memo,
         destination AS counterparty, created_at, settled_at, id AS reference
    FROM bank.payments
  UNION ALL
  SELECT p.payee_wallet_id, p.id || '.in', CASE WHEN p.payment_hash IS NULL THEN 'payment' ELSE 'invoice' END, 'in',
         p.status, p.amount_msat, 0, coalesce(i.memo, p.memo), coalesce('@' || a.username, 'wallet:' || p.wallet_id),
         p.created_at, p.settled_at, coalesce(i.id, p.id)
    FROM bank.payments p JOIN bank.accounts a ON a.id = p.account_id LEFT JOIN bank.invoices i ON i.paid_by = p.id
   WHERE p.payee_wallet_id IS NOT NULL
  UNION ALL
  SELECT wallet_id, id || '.in', 'invoice', 'in', 'settled', outside_msat, 0, memo, 'lightning', outside_at, outside_at, id
    FROM bank.invoices WHERE outside_msat > 0;

-- The accounts of the bank itself that every payment may touch: entries only, no balance row in the hot path.
SELECT ledger.open_account(code, kind, 'BTC', NULL, 'append') FROM (VALUES
  ('liab:outbox', 'liability'), ('suspense:in', 'liability'), ('equity:capital', 'equity'),
  ('income:ln-fee', 'income'), ('exp:ln-routing', 'expense')) chart(code, kind);

GRANT USAGE ON SCHEMA bank TO millrace_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA bank TO millrace_app;
GRANT UPDATE ON bank.accounts, bank.api_keys, bank.nodes, bank.payments, bank.invoices, bank.node_cancellations TO millrace_app;
