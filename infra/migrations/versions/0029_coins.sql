-- Every transaction that was seen to spend an outpoint, also before the coin itself is recorded. A row for each of two rivals;
-- bank.coins.spent_by names the one that is in force.
CREATE TABLE bank.coin_spends(
  txid         text NOT NULL CHECK (txid ~ '^[0-9a-f]{64}$'),
  vout         int NOT NULL CHECK (vout >= 0),
  spender      text NOT NULL CHECK (spender ~ '^[0-9a-f]{64}$'),
  block_height int,
  gone         boolean NOT NULL DEFAULT false,
  seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (txid, vout, spender),
  CHECK (NOT gone OR block_height IS NULL));
COMMENT ON COLUMN bank.coin_spends.gone IS 'the spender is in no block and not in the mempool';
COMMENT ON COLUMN bank.coin_spends.seen_at IS 'when the spender was last seen at another place';
CREATE INDEX coin_spends_of ON bank.coin_spends(spender);
CREATE INDEX coin_spends_seen ON bank.coin_spends(seen_at);
CREATE INDEX coin_spends_in_mempool ON bank.coin_spends(spender) WHERE block_height IS NULL AND NOT gone;
CREATE INDEX coin_spends_mined ON bank.coin_spends(block_height) WHERE block_height IS NOT NULL;

CREATE INDEX coins_in_mempool ON bank.coins(txid) WHERE block_height IS NULL AND NOT gone;
CREATE INDEX coins_seen ON bank.coins(seen_at) WHERE NOT opening;

GRANT SELECT, INSERT, UPDATE ON bank.coin_spends TO millrace_app;
GRANT DELETE ON bank.coin_origins TO millrace_app;
