-- Decisions: how a payment ends whose node cannot tell its end any more. Proposed by one operator, carried out by another's word.

CREATE TABLE bank.decisions(
  id          text PRIMARY KEY,
  payment_id  text NOT NULL REFERENCES bank.payments,
  payment_end text NOT NULL CHECK (payment_end IN ('settled', 'failed')),
  preimage    text CHECK (preimage ~ '^[0-9a-f]{64}$'),
  fee_msat    bigint NOT NULL CHECK (fee_msat >= 0),
  reason      text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 1000),
  status      text NOT NULL DEFAULT 'proposed' CHECK (status IN ('proposed', 'done', 'rejected')),
  proposed_by text NOT NULL CHECK (char_length(proposed_by) BETWEEN 1 AND 100),
  decided_by  text CHECK (char_length(decided_by) BETWEEN 1 AND 100),
  note        text CHECK (char_length(note) <= 1000),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  decided_at  timestamptz,
  CONSTRAINT two_operators CHECK (status <> 'done' OR decided_by <> proposed_by),
  CHECK ((payment_end = 'settled') = (preimage IS NOT NULL)),
  CHECK (payment_end = 'settled' OR fee_msat = 0),
  CHECK ((status = 'proposed') = (decided_by IS NULL) AND (status = 'proposed') = (decided_at IS NULL)
         AND (status = 'proposed') = (note IS NULL)));
COMMENT ON COLUMN bank.decisions.proposed_by IS 'whose key it was: an account, or "admin" for the bootstrap key';
COMMENT ON COLUMN bank.decisions.fee_msat IS 'what the node paid for routing, as far as anybody knows';
CREATE UNIQUE INDEX one_open_decision_of_a_payment ON bank.decisions(payment_id) WHERE status <> 'rejected';
CREATE INDEX decisions_newest ON bank.decisions(created_at DESC, id DESC);

GRANT SELECT, INSERT ON bank.decisions TO millrace_app;
GRANT UPDATE (status, decided_by, note, decided_at) ON bank.decisions TO millrace_app;
