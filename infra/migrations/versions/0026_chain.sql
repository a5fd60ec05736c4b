-- The hot wallet, and the chain as its pump last saw it. A row is written when the wallet is adopted; today there is one.
CREATE TABLE bank.chains(
  wallet        text PRIMARY KEY CHECK (wallet ~ '^[a-z][a-z0-9-]{0,30}$'),
  network       text NOT NULL,
  anchor_height int NOT NULL CHECK (anchor_height >= 0),
  anchor_hash   text NOT NULL CHECK (anchor_hash ~ '^[0-9a-f]{64}$'),
  tip_height    int NOT NULL CHECK (tip_height >= 0),
  tip_hash      text NOT NULL CHECK (tip_hash ~ '^[0-9a-f]{64}$'),
  tip_work      text NOT NULL CHECK (tip_work ~ '^[0-9a-f]{64}$'),
  epoch         bigint NOT NULL DEFAULT 0,
  adopted_height int NOT NULL CHECK (adopted_height >= anchor_height),
  rescan_from   int CHECK (rescan_from >= 0),
  rescans       int NOT NULL DEFAULT 0,
  scan_from     int CHECK (scan_from >= 0),
  problem       text,
  pool_problem  text,
  report        jsonb NOT NULL DEFAULT '{}',
  reported_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  adopted_at    timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.chains.anchor_hash IS 'the lowest block that was remembered at the adoption';
COMMENT ON COLUMN bank.chains.adopted_height IS 'the tip at the adoption: what the wallet had received until then is capital, and no deposit';
COMMENT ON COLUMN bank.chains.epoch IS 'counts the pumps: each takes the next number, and one with an older number can write nothing';
COMMENT ON COLUMN bank.chains.rescans IS 'counts the requests: one that comes during a look is not cleared by it';
COMMENT ON COLUMN bank.chains.rescan_from IS 'an operator asks the pump to look again from this height; it clears the request';
COMMENT ON COLUMN bank.chains.scan_from IS 'bitcoind''s wallet must read the blocks again from this height: it has lost some';
COMMENT ON COLUMN bank.chains.pool_problem IS 'why no address can be made or watched: another wallet has taken the place of ours';
COMMENT ON COLUMN bank.chains.problem IS 'why bitcoind cannot be followed now: unreachable, behind, other_network …';

-- The blocks that the pump has followed, the youngest 2,016: where a reorganisation forks off is found among them.
CREATE TABLE bank.blocks(
  wallet text NOT NULL REFERENCES bank.chains,
  height int NOT NULL,
  hash   text NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
  PRIMARY KEY (wallet, height));

-- Every address that the hot wallet has made for us. Without a wallet of a user it is in the pool. It is given once, for ever.
CREATE TABLE bank.addresses(
  address     text PRIMARY KEY CHECK (char_length(address) BETWEEN 10 AND 100),
  hd_index    int NOT NULL CHECK (hd_index >= 0),
  made_height int NOT NULL CHECK (made_height >= 0),
  wallet_id   text REFERENCES bank.wallets,
  account_id  text REFERENCES bank.accounts,
  purpose     text CHECK (purpose IN ('api', 'tip')),
  paid        boolean NOT NULL DEFAULT false,
  made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  given_at    timestamptz,
  CHECK (num_nulls(wallet_id, account_id, purpose, given_at) IN (0, 4)),
  CHECK (NOT paid OR wallet_id IS NOT NULL));
COMMENT ON COLUMN bank.addresses.made_height IS 'the tip when it was made: nothing can have been paid to it before';
CREATE INDEX addresses_in_pool ON bank.addresses(hd_index) WHERE wallet_id IS NULL;
CREATE INDEX addresses_of_account ON bank.addresses(account_id, given_at DESC, address DESC) WHERE wallet_id IS NOT NULL;
CREATE INDEX addresses_unpaid ON bank.addresses(wallet_id, purpose, given_at) WHERE wallet_id IS NOT NULL AND NOT paid;
CREATE INDEX addresses_by_index ON bank.addresses(hd_index DESC);

-- One row per payment that a person would call one: it keeps its row when its transaction is replaced by another.
CREATE TABLE bank.deposits(
  id           text PRIMARY KEY,
  txid         text NOT NULL CHECK (txid ~ '^[0-9a-f]{64}$'),
  vout         int NOT NULL CHECK (vout >= 0),
  address      text NOT NULL,
  wallet_id    text REFERENCES bank.wallets,
  account_id   text REFERENCES bank.accounts,
  amount_sat   bigint NOT NULL CHECK (amount_sat > 0),
  coinbase     boolean NOT NULL DEFAULT false,
  status       text NOT NULL DEFAULT 'pending'
               CHECK (status IN ('pending', 'credited', 'reversed', 'dropped', 'below_minimum', 'held', 'unattributed')),
  sight        text NOT NULL CHECK (sight IN ('mempool', 'mined', 'gone')),
  block_height int,
  block_hash   text CHECK (block_hash ~ '^[0-9a-f]{64}$'),
  required     int NOT NULL CHECK (required BETWEEN 1 AND 1000),
  deep         int NOT NULL CHECK (deep >= required),
  below_minimum boolean NOT NULL DEFAULT false,
  hold_ref     text UNIQUE,
  holds        int NOT NULL DEFAULT 0,
  over_limit   boolean NOT NULL DEFAULT false,
  conf_ref     text UNIQUE,
  confs        int NOT NULL DEFAULT 0,
  place        text CHECK (place IN ('wallet', 'pending', 'suspense')),
  release_ref  text UNIQUE,
  fee_msat     bigint NOT NULL DEFAULT 0 CHECK (fee_msat >= 0),
  fee_version  int,
  fee_level    smallint,
  alone        boolean NOT NULL DEFAULT true,
  workflow_id  text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  credited_at  timestamptz,
  final_at     timestamptz,
  UNIQUE (txid, vout),
  CHECK (num_nulls(wallet_id, account_id) IN (0, 2)),
  CHECK ((sight = 'mined') = (block_height IS NOT NULL) AND num_nulls(block_height, block_hash) IN (0, 2)),
  CHECK ((conf_ref IS NULL) = (place IS NULL)),
  CHECK (hold_ref IS NULL OR (conf_ref IS NULL AND status <> 'dropped')),
  CHECK (release_ref IS NULL OR conf_ref IS NOT NULL),
  CHECK (final_at IS NULL OR conf_ref IS NOT NULL),
  CHECK (status NOT IN ('credited', 'held', 'unattributed') OR conf_ref IS NOT NULL),
  CHECK (conf_ref IS NULL OR status IN ('credited', 'held', 'unattributed', 'below_minimum')),
  CHECK (fee_msat = 0 OR (fee_version IS NOT NULL AND fee_level IS NOT NULL)));
COMMENT ON COLUMN bank.deposits.required IS 'the depth at which it is credited, by the rulebook at first sight';
COMMENT ON COLUMN bank.deposits.hold_ref IS 'the open hold that shows it as incoming';
COMMENT ON COLUMN bank.deposits.conf_ref IS 'the posting by which asset:hot has it; NULL before that and after a reversal';
COMMENT ON COLUMN bank.deposits.place IS 'where that posting put it: the user''s wallet, liab:deposits-pending, suspense:in';
COMMENT ON COLUMN bank.deposits.release_ref IS 'the posting by which two operators moved it on to a wallet';
COMMENT ON COLUMN bank.deposits.alone IS 'whether a workflow of its own follows it; many at once share one per step';
CREATE INDEX deposits_of_account ON bank.deposits(account_id, created_at DESC, id DESC) WHERE account_id IS NOT NULL;
CREATE INDEX deposits_of_wallet ON bank.deposits(wallet_id, created_at DESC, id DESC) WHERE wallet_id IS NOT NULL;
CREATE INDEX deposits_to_address ON bank.deposits(address);
CREATE INDEX deposits_watched ON bank.deposits(created_at, id)
  WHERE (final_at IS NULL AND status <> 'dropped') OR (conf_ref IS NOT NULL AND sight <> 'mined') OR (status = 'dropped' AND sight <> 'gone');
CREATE INDEX deposits_unmined ON bank.deposits(txid) WHERE block_height IS NULL;
CREATE INDEX deposits_mined ON bank.deposits(block_height) WHERE block_height IS NOT NULL;
CREATE INDEX deposits_by_state ON bank.deposits(status);

-- Outpoints that a deposit had before its transaction was replaced: when the old one comes back, it is the same payment.
CREATE TABLE bank.deposit_outpoints(
  txid       text NOT NULL,
  vout       int NOT NULL,
  deposit_id text NOT NULL REFERENCES bank.deposits,
  amount_sat bigint NOT NULL,
  replaced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (txid, vout));
CREATE INDEX deposit_outpoints_of ON bank.deposit_outpoints(deposit_id);

-- What a user had already spent of a deposit that a reorganisation took back. It is booked to exp:loss until somebody pays it.
CREATE TABLE bank.receivables(
  id          text PRIMARY KEY,
  deposit_id  text NOT NULL REFERENCES bank.deposits,
  account_id  text NOT NULL REFERENCES bank.accounts,
  wallet_id   text NOT NULL REFERENCES bank.wallets,
  amount_msat bigint NOT NULL CHECK (amount_msat > 0),
  ref         text NOT NULL UNIQUE,
  status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'repaid', 'forgiven')),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at    timestamptz,
  ended_by    text,
  CHECK ((status = 'open') = (ended_at IS NULL)));
COMMENT ON COLUMN bank.receivables.ref IS 'the reversal that left it';
CREATE INDEX receivables_open ON bank.receivables(deposit_id) WHERE status = 'open';
CREATE INDEX receivables_of_account ON bank.receivables(account_id);

-- The outputs of the hot wallet, also its change. An output that has left the chain is gone, and may come back.
CREATE TABLE bank.coins(
  txid         text NOT NULL CHECK (txid ~ '^[0-9a-f]{64}$'),
  vout         int NOT NULL CHECK (vout >= 0),
  amount_sat   bigint NOT NULL CHECK (amount_sat > 0),
  address      text,
  change       boolean NOT NULL DEFAULT false,
  block_height int,
  spent_by     text CHECK (spent_by ~ '^[0-9a-f]{64}$'),
  spent_height int,
  gone         boolean NOT NULL DEFAULT false,
  opening      boolean NOT NULL DEFAULT false,
  seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (txid, vout));
COMMENT ON COLUMN bank.coins.opening IS 'in the wallet when it was adopted: the house''s own';
CREATE INDEX coins_unspent ON bank.coins(txid, vout) WHERE spent_by IS NULL AND NOT gone;
CREATE INDEX coins_mined ON bank.coins(block_height) WHERE block_height IS NOT NULL;
CREATE INDEX coins_spent_by ON bank.coins(spent_by) WHERE spent_by IS NOT NULL;
CREATE INDEX coins_to_address ON bank.coins(address);

-- Whose money each coin descends from. A coin without a row here that is not gone is the house's own.
CREATE TABLE bank.coin_origins(
  txid       text NOT NULL,
  vout       int NOT NULL,
  account_id text NOT NULL,
  PRIMARY KEY (txid, vout, account_id),
  FOREIGN KEY (txid, vout) REFERENCES bank.coins);
COMMENT ON COLUMN bank.coin_origins.account_id IS 'an account, or "unknown" for a deposit that nobody has claimed';
CREATE INDEX coin_origins_of_account ON bank.coin_origins(account_id);

SELECT ledger.open_account(code, kind, 'BTC', NULL, 'append') FROM (VALUES
  ('asset:hot', 'asset'), ('liab:deposits-pending', 'liability'), ('income:deposit-fee', 'income'), ('exp:loss', 'expense'))
  chart(code, kind);

-- The third rulebook: depth by amount, the minimum, and how deep a block must lie to be left alone.
ALTER TABLE bank.rulebooks DROP CONSTRAINT rulebooks_name_check;
ALTER TABLE bank.rulebooks ADD CONSTRAINT rulebooks_name_check CHECK (name IN ('fees', 'limits', 'deposits'));
INSERT INTO bank.rulebooks(name, version, content, note, set_by) VALUES ('deposits', 1,
  '{"confirmations": [{"up_to_sat": 1000000, "confirmations": 1}, {"up_to_sat": 100000000, "confirmations": 3}, {"confirmations": 6}], "minimum_sat": 1000, "deep": 6, "unpaid_addresses": 1000}',
  'to begin with', 'migration');

GRANT SELECT, INSERT ON bank.chains, bank.blocks, bank.addresses, bank.deposits, bank.deposit_outpoints, bank.receivables,
  bank.coins, bank.coin_origins TO millrace_app;
GRANT UPDATE ON bank.chains, bank.addresses, bank.deposits, bank.coins, bank.deposit_outpoints TO millrace_app;
GRANT UPDATE (status, ended_at, ended_by) ON bank.receivables TO millrace_app;
GRANT DELETE, UPDATE ON bank.blocks TO millrace_app;
