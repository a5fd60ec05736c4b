-- Decisions about deposits: proposed by one operator, carried out when another approves.

CREATE TABLE bank.deposit_decisions(
  id            text PRIMARY KEY,
  deposit_id    text NOT NULL REFERENCES bank.deposits,
  kind          text NOT NULL CHECK (kind IN ('release', 'attribute', 'forgive')),
  wallet_id     text REFERENCES bank.wallets,
  receivable_id text REFERENCES bank.receivables,
  amount_msat   bigint NOT NULL CHECK (amount_msat > 0),
  reason        text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 1000),
  status        text NOT NULL DEFAULT 'proposed' CHECK (status IN ('proposed', 'done', 'rejected')),
  proposed_by   text NOT NULL CHECK (char_length(proposed_by) BETWEEN 1 AND 100),
  decided_by    text CHECK (char_length(decided_by) BETWEEN 1 AND 100),
  note          text CHECK (char_length(note) <= 1000),
  ref           text UNIQUE,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  decided_at    timestamptz,
  CONSTRAINT two_operators CHECK (status <> 'done' OR decided_by <> proposed_by),
  CHECK ((kind = 'attribute') = (wallet_id IS NOT NULL)),
  CHECK ((kind = 'forgive') = (receivable_id IS NOT NULL)),
  CHECK ((ref IS NOT NULL) = (status = 'done' AND kind <> 'forgive')),
  CHECK ((status = 'proposed') = (decided_by IS NULL) AND (status = 'proposed') = (decided_at IS NULL)
         AND (status = 'proposed') = (note IS NULL)));
COMMENT ON COLUMN bank.deposit_decisions.proposed_by IS 'whose key it was: an account, or "admin" for the bootstrap key';
COMMENT ON COLUMN bank.deposit_decisions.amount_msat IS 'the amount of the deposit, or of the receivable, when it was proposed';
COMMENT ON COLUMN bank.deposit_decisions.ref IS 'the posting that moved the deposit to a wallet';
CREATE UNIQUE INDEX one_open_decision_of_a_deposit ON bank.deposit_decisions(deposit_id) WHERE status = 'proposed';
CREATE INDEX deposit_decisions_of ON bank.deposit_decisions(deposit_id, created_at DESC);
CREATE INDEX deposit_decisions_newest ON bank.deposit_decisions(created_at DESC, id DESC);

-- What operators list: deposits of every account, also by status.
DROP INDEX IF EXISTS bank.deposits_by_state;
CREATE INDEX deposits_newest ON bank.deposits(created_at DESC, id DESC);
CREATE INDEX deposits_of_status ON bank.deposits(status, created_at DESC, id DESC);
CREATE INDEX receivables_of_deposit ON bank.receivables(deposit_id, created_at DESC);

GRANT SELECT, INSERT ON bank.deposit_decisions TO millrace_app;
GRANT UPDATE (status, decided_by, note, decided_at, ref) ON bank.deposit_decisions TO millrace_app;
