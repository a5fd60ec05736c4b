-- On-chain out: what users ask for, the payouts that pay it, their versions, and the coins that these reserve.

-- One transaction of the hot wallet that pays withdrawals, bumps another one, or joins coins. It may have many versions;
-- at most one of them is ever confirmed.
CREATE TABLE bank.payouts(
  id           text PRIMARY KEY,
  wallet       text NOT NULL REFERENCES bank.chains,
  kind         text NOT NULL CHECK (kind IN ('batch', 'child', 'consolidation')),
  speed        text NOT NULL CHECK (speed IN ('fast', 'standard', 'slow')),
  alone        boolean NOT NULL DEFAULT false,
  unlinked     boolean NOT NULL DEFAULT false,
  status       text NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'signed', 'broadcast', 'confirmed', 'final', 'dissolved')),
  parent_id    text REFERENCES bank.payouts,
  estimate     jsonb NOT NULL DEFAULT '{}',
  on_hold      boolean NOT NULL DEFAULT false,
  problem      text CHECK (char_length(problem) <= 1000),
  coins_gone   boolean NOT NULL DEFAULT false CHECK (NOT coins_gone OR status = 'dissolved'),
  fee_booked_sat bigint NOT NULL DEFAULT 0 CHECK (fee_booked_sat >= 0),
  bookings     int NOT NULL DEFAULT 0 CHECK (bookings >= 0),
  booked_ref   text UNIQUE,
  bump_to_sat_kvb bigint CHECK (bump_to_sat_kvb > 0),
  confirmed_version int,
  block_height int,
  workflow_id  text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  broadcast_at timestamptz,
  confirmed_at timestamptz,
  final_at     timestamptz,
  CHECK ((kind = 'child') = (parent_id IS NOT NULL)),
  CHECK (status NOT IN ('broadcast', 'confirmed', 'final') OR booked_ref IS NOT NULL),
  CHECK (booked_ref IS NULL OR status IN ('broadcast', 'confirmed', 'final') OR (kind = 'child' AND status = 'dissolved')),
  CHECK ((status IN ('confirmed', 'final')) = (block_height IS NOT NULL) AND num_nulls(block_height, confirmed_version) IN (0, 2)),
  CHECK ((status = 'final') = (final_at IS NOT NULL)));
COMMENT ON COLUMN bank.payouts.status IS 'planned: nothing is signed, it can still be dissolved; signed: its bytes may be known to anybody; broadcast: booked';
COMMENT ON COLUMN bank.payouts.fee_booked_sat IS 'the miner fee that the books have for it now; the members'' shares are the fee of its first version';
COMMENT ON COLUMN bank.payouts.bookings IS 'counts the postings of changed fees';
COMMENT ON COLUMN bank.payouts.bump_to_sat_kvb IS 'an operator wants the next version to pay this rate, in sat per 1,000 virtual bytes';
COMMENT ON COLUMN bank.payouts.problem IS 'why it does not go on: for operators';
COMMENT ON COLUMN bank.payouts.coins_gone IS 'dissolved because a coin of it was spent by hand; its coins are left alone for a while';
CREATE INDEX payouts_alive ON bank.payouts(created_at, id) WHERE status NOT IN ('final', 'dissolved');
CREATE INDEX payouts_newest ON bank.payouts(created_at DESC, id DESC);

-- The transactions of a payout. Everything about one is stored before the next step is taken: plan, unsigned, signed, sent.
CREATE TABLE bank.payout_versions(
  payout_id      text NOT NULL REFERENCES bank.payouts,
  number         int NOT NULL CHECK (number BETWEEN 1 AND 1000),
  kind           text NOT NULL CHECK (kind IN ('first', 'bump', 'rebuild')),
  rate_sat_kvb   bigint NOT NULL CHECK (rate_sat_kvb > 0),
  fee_sat        bigint NOT NULL CHECK (fee_sat > 0),
  weight         int NOT NULL CHECK (weight BETWEEN 1 AND 400000),
  change_sat     bigint NOT NULL DEFAULT 0 CHECK (change_sat >= 0),
  change_vout    int CHECK (change_vout >= 0),
  change_address text,
  psbt           text,
  raw            text,
  txid           text UNIQUE CHECK (txid ~ '^[0-9a-f]{64}$'),
  refused        text CHECK (char_length(refused) <= 1000),
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  signed_at      timestamptz,
  broadcast_at   timestamptz,
  PRIMARY KEY (payout_id, number),
  CHECK ((change_sat > 0) = (change_vout IS NOT NULL)),
  CHECK (change_address IS NULL OR change_sat > 0),
  CHECK (num_nulls(raw, txid, signed_at) IN (0, 3)),
  CHECK (raw IS NULL OR psbt IS NOT NULL),
  CHECK (broadcast_at IS NULL OR raw IS NOT NULL));
CREATE INDEX payout_versions_change ON bank.payout_versions(change_address) WHERE change_address IS NOT NULL;
COMMENT ON COLUMN bank.payout_versions.rate_sat_kvb IS 'sat per 1,000 virtual bytes';
COMMENT ON COLUMN bank.payout_versions.refused IS 'why the node would not take it, in its own words made harmless';
CREATE TABLE bank.payout_inputs(
  payout_id  text NOT NULL,
  number     int NOT NULL,
  txid       text NOT NULL CHECK (txid ~ '^[0-9a-f]{64}$'),
  vout       int NOT NULL CHECK (vout >= 0),
  amount_sat bigint NOT NULL CHECK (amount_sat > 0),
  place      int NOT NULL CHECK (place >= 0),
  PRIMARY KEY (payout_id, number, txid, vout),
  UNIQUE (payout_id, number, place),
  FOREIGN KEY (payout_id, number) REFERENCES bank.payout_versions);
CREATE INDEX payout_inputs_of_coin ON bank.payout_inputs(txid, vout);

-- A coin is promised to at most one payout. The row goes when the payout is final or dissolved.
CREATE TABLE bank.coin_reservations(
  txid      text NOT NULL,
  vout      int NOT NULL,
  payout_id text NOT NULL REFERENCES bank.payouts,
  made_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (txid, vout));
CREATE INDEX coin_reservations_of ON bank.coin_reservations(payout_id);

-- What a user asks to be paid on chain. The money is held from the commit that writes the row until the row has ended.
CREATE TABLE bank.withdrawals(
  id              text PRIMARY KEY,
  account_id      text NOT NULL REFERENCES bank.accounts,
  wallet_id       text NOT NULL REFERENCES bank.wallets,
  address         text NOT NULL CHECK (char_length(address) BETWEEN 10 AND 100),
  script          bytea NOT NULL CHECK (octet_length(script) BETWEEN 4 AND 42),
  payee_wallet_id text REFERENCES bank.wallets,
  amount_sat      bigint NOT NULL CHECK (amount_sat > 0),
  fee_from        text NOT NULL CHECK (fee_from IN ('balance', 'amount')),
  send_all        boolean NOT NULL DEFAULT false,
  speed           text NOT NULL CHECK (speed IN ('fast', 'standard', 'slow')),
  alone           boolean NOT NULL DEFAULT false,
  unlinked        boolean NOT NULL DEFAULT false,
  max_fee_sat     bigint NOT NULL CHECK (max_fee_sat >= 0),
  held_msat       bigint NOT NULL CHECK (held_msat > 0),
  service_fee_msat bigint NOT NULL CHECK (service_fee_msat >= 0),
  fee_version     int NOT NULL,
  fee_level       smallint NOT NULL,
  status          text NOT NULL DEFAULT 'queued'
                  CHECK (status IN ('queued', 'batched', 'broadcast', 'confirmed', 'cancelled', 'failed')),
  approval        text CHECK (approval IN ('needed', 'given')),
  approve_until   timestamptz,
  on_hold         boolean NOT NULL DEFAULT false,
  waits_for       text CHECK (char_length(waits_for) <= 500),
  payout_id       text REFERENCES bank.payouts,
  place           int CHECK (place >= 0),
  vout            int CHECK (vout >= 0),
  paid_sat        bigint CHECK (paid_sat > 0),
  miner_fee_sat   bigint CHECK (miner_fee_sat >= 0),
  failure_code    text,
  failure_detail  text CHECK (char_length(failure_detail) <= 1000),
  memo            text,
  external_id     text,
  workflow_id     text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  sealed_at       timestamptz,
  broadcast_at    timestamptz,
  ended_at        timestamptz,
  UNIQUE (payout_id, place),
  CHECK (payee_wallet_id IS NULL OR (status IN ('confirmed', 'failed') AND payout_id IS NULL)),
  CHECK (num_nulls(payout_id, place, paid_sat, miner_fee_sat) IN (0, 4) OR payee_wallet_id IS NOT NULL),
  CHECK (status NOT IN ('batched', 'broadcast') OR payout_id IS NOT NULL),
  CHECK (status NOT IN ('queued', 'cancelled', 'failed') OR payout_id IS NULL),
  CHECK ((approval = 'needed') <= (approve_until IS NOT NULL)),
  CHECK ((failure_code IS NOT NULL) = (status = 'failed')),
  CHECK ((ended_at IS NOT NULL) = (status IN ('confirmed', 'cancelled', 'failed'))));
COMMENT ON COLUMN bank.withdrawals.amount_sat IS 'what the user asked for; with fee_from = amount, the fees are taken from it';
COMMENT ON COLUMN bank.withdrawals.held_msat IS 'amount, fee cap and our fee: all that can leave the wallet for it';
COMMENT ON COLUMN bank.withdrawals.paid_sat IS 'the output: what the payee receives';
COMMENT ON COLUMN bank.withdrawals.place IS 'the order among the members of its payout; vout skips the change';
COMMENT ON COLUMN bank.withdrawals.waits_for IS 'why the batcher has left it out, for people';
CREATE INDEX withdrawals_of_account ON bank.withdrawals(account_id, created_at DESC, id DESC);
CREATE INDEX withdrawals_of_wallet ON bank.withdrawals(wallet_id, created_at DESC, id DESC);
CREATE INDEX withdrawals_to_wallet ON bank.withdrawals(payee_wallet_id, created_at DESC, id DESC) WHERE payee_wallet_id IS NOT NULL;
CREATE INDEX withdrawals_queued ON bank.withdrawals(speed, created_at, id) WHERE status = 'queued';
CREATE INDEX withdrawals_alive ON bank.withdrawals(created_at, id) WHERE status IN ('queued', 'batched', 'broadcast');
CREATE INDEX withdrawals_newest ON bank.withdrawals(created_at DESC, id DESC);
CREATE INDEX withdrawals_of_status ON bank.withdrawals(status, created_at DESC, id DESC);

-- What operators do to withdrawals and payouts. Above an amount a second one must approve it.
CREATE TABLE bank.withdrawal_decisions(
  id            text PRIMARY KEY,
  withdrawal_id text REFERENCES bank.withdrawals,
  payout_id     text REFERENCES bank.payouts,
  kind          text NOT NULL CHECK (kind IN ('approve', 'reject', 'hold', 'resume', 'bump', 'child')),
  amount_sat    bigint NOT NULL CHECK (amount_sat >= 0),
  rate_sat_kvb  bigint CHECK (rate_sat_kvb > 0),
  operators     int NOT NULL CHECK (operators IN (1, 2)),
  reason        text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 1000),
  status        text NOT NULL DEFAULT 'proposed' CHECK (status IN ('proposed', 'done', 'rejected')),
  proposed_by   text NOT NULL CHECK (char_length(proposed_by) BETWEEN 1 AND 100),
  decided_by    text CHECK (char_length(decided_by) BETWEEN 1 AND 100),
  note          text CHECK (char_length(note) <= 1000),
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  decided_at    timestamptz,
  CONSTRAINT two_operators CHECK (status <> 'done' OR operators = 1 OR decided_by <> proposed_by),
  CHECK (num_nulls(withdrawal_id, payout_id) = 1),
  CHECK ((rate_sat_kvb IS NOT NULL) <= (kind IN ('bump', 'child'))),
  CHECK ((status = 'proposed') = (decided_by IS NULL) AND (status = 'proposed') = (decided_at IS NULL)));
CREATE UNIQUE INDEX one_open_decision_of_a_withdrawal ON bank.withdrawal_decisions(coalesce(withdrawal_id, payout_id)) WHERE status = 'proposed';
CREATE INDEX withdrawal_decisions_newest ON bank.withdrawal_decisions(created_at DESC, id DESC);

SELECT ledger.open_account(code, kind, 'BTC', NULL, 'append') FROM (VALUES
  ('liab:payout-queue', 'liability'), ('income:withdraw-fee', 'income'), ('exp:miner:withdraw', 'expense')) chart(code, kind);

ALTER TABLE bank.rulebooks DROP CONSTRAINT rulebooks_name_check;
ALTER TABLE bank.rulebooks ADD CONSTRAINT rulebooks_name_check CHECK (name IN ('fees', 'limits', 'deposits', 'withdrawals'));

-- Who withdraws all takes what is there under its lock, so that nothing is left.
REVOKE ALL ON FUNCTION ledger.lock_balances FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.lock_balances TO millrace_app;

GRANT SELECT, INSERT ON bank.withdrawals, bank.payouts, bank.payout_versions, bank.payout_inputs, bank.coin_reservations,
  bank.withdrawal_decisions TO millrace_app;
GRANT DELETE ON bank.coin_reservations TO millrace_app;
GRANT UPDATE (status, approval, on_hold, waits_for, payout_id, place, vout, paid_sat, miner_fee_sat, failure_code,
  failure_detail, sealed_at, broadcast_at, ended_at) ON bank.withdrawals TO millrace_app;
GRANT UPDATE (status, on_hold, problem, coins_gone, fee_booked_sat, bookings, booked_ref, bump_to_sat_kvb, confirmed_version,
  block_height, broadcast_at, confirmed_at, final_at) ON bank.payouts TO millrace_app;
GRANT UPDATE (change_address, psbt, raw, txid, refused, signed_at, broadcast_at) ON bank.payout_versions TO millrace_app;
GRANT UPDATE (status, decided_by, note, decided_at) ON bank.withdrawal_decisions TO millrace_app;

-- The fourth rulebook. Rates are satoshi per 1,000 virtual bytes.
INSERT INTO bank.rulebooks(name, version, content, note, set_by) VALUES ('withdrawals', 1,
  '{"minimum_sat": 1000, "approval_above_sat": 10000000, "second_operator_above_sat": 100000000, "approval_hours": 24,
    "speeds": {"fast": {"target_blocks": 2, "window_s": 30, "count": 100},
               "standard": {"target_blocks": 6, "window_s": 600, "count": 100},
               "slow": {"target_blocks": 144, "window_s": 7200, "count": 200}},
    "rate": {"floor": 1000, "ceiling": 500000, "fallback": 10000, "stale_s": 3600},
    "coins": {"min_depth": 1, "useful_change_sat": 10000, "long_term_rate": 10000, "max_inputs": 200},
    "max_outputs": 200, "deep": 6,
    "bump": {"after_blocks": 3, "after_s": 3600, "most": 10},
    "consolidation": {"enabled": false, "below_rate": 3000, "above_coins": 500}}',
  'to begin with', 'migration');
