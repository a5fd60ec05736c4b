-- Corrections and capital: what two operators enter by hand, and the trail of each. What was proposed is never changed.

SELECT ledger.open_account('suspense:recon:operator', 'liability', 'BTC', NULL, 'append');

CREATE TABLE bank.corrections(
  id             text PRIMARY KEY,
  kind           text NOT NULL CHECK (kind IN ('correction', 'capital')),
  debit          text NOT NULL REFERENCES ledger.accounts(code),
  credit         text NOT NULL REFERENCES ledger.accounts(code),
  amount_msat    bigint NOT NULL CHECK (amount_msat > 0),
  reason         text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 1000),
  case_id        text REFERENCES bank.cases,
  reference      text CHECK (char_length(reference) BETWEEN 1 AND 255),
  status         text NOT NULL DEFAULT 'proposed'
                 CHECK (status IN ('proposed', 'approved', 'posted', 'refused', 'rejected', 'expired')),
  proposed_by    text NOT NULL CHECK (char_length(proposed_by) BETWEEN 1 AND 100),
  approved_by    text CHECK (char_length(approved_by) BETWEEN 1 AND 100),
  rejected_by    text CHECK (char_length(rejected_by) BETWEEN 1 AND 100),
  refusal_code   text,
  refusal_detail text,
  workflow_id    text NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at     timestamptz NOT NULL,
  decided_at     timestamptz,
  ended_at       timestamptz,
  CHECK (debit <> credit),
  CHECK (debit <> 'liab:outbox' AND credit <> 'liab:outbox'),
  CHECK ((kind = 'capital') = (debit = 'equity:capital' OR credit = 'equity:capital')),
  CONSTRAINT two_operators CHECK (approved_by <> proposed_by),
  CHECK ((approved_by IS NOT NULL) = (status IN ('approved', 'posted', 'refused'))),
  CHECK ((rejected_by IS NOT NULL) = (status = 'rejected')),
  CHECK ((refusal_code IS NOT NULL) = (status = 'refused') AND (refusal_detail IS NOT NULL) = (status = 'refused')),
  CHECK ((decided_at IS NOT NULL) = (status IN ('approved', 'posted', 'refused', 'rejected'))),
  CHECK ((ended_at IS NULL) = (status IN ('proposed', 'approved'))));
COMMENT ON COLUMN bank.corrections.proposed_by IS 'whose key it was: an account, or "admin" for the bootstrap key';
COMMENT ON COLUMN bank.corrections.status IS 'refused: two operators wanted it, and the books did not take it';
CREATE INDEX corrections_newest ON bank.corrections(created_at DESC, id DESC);
CREATE INDEX corrections_from_wallet ON bank.corrections(substr(debit, 11), ended_at DESC, id DESC)
   WHERE status = 'posted' AND starts_with(debit, 'liab:user:');
CREATE INDEX corrections_to_wallet ON bank.corrections(substr(credit, 11), ended_at DESC, id DESC)
   WHERE status = 'posted' AND starts_with(credit, 'liab:user:');

CREATE TABLE bank.correction_updates(
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  correction_id text NOT NULL REFERENCES bank.corrections,
  event         text NOT NULL CHECK (event IN ('proposed', 'approved', 'posted', 'refused', 'rejected', 'expired')),
  actor         text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 100),
  note          text NOT NULL,
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (correction_id, event));

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.correction_updates
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

-- A correction between two users concerns both: the trail is searched for the second one too.
CREATE INDEX audit_of_other_account ON bank.audit((detail ->> 'other_account_id'), id) WHERE detail ? 'other_account_id';

-- What was entered by hand, as its owner sees it: in the columns of bank.transactions, and part of it. Its time is that of the
-- posting. A wallet's account is liab:user:<wallet>.
CREATE VIEW bank.adjustments AS
  SELECT substr(debit, 11) AS wallet_id, id || '.out' AS id, 'adjustment' AS kind, 'out' AS direction, 'settled' AS status,
         amount_msat, 0::bigint AS fee_msat, reason AS memo, 'bank' AS counterparty, ended_at AS created_at,
         ended_at AS settled_at, id AS reference
    FROM bank.corrections WHERE status = 'posted' AND starts_with(debit, 'liab:user:')
  UNION ALL
  SELECT substr(credit, 11), id || '.in', 'adjustment', 'in', 'settled', amount_msat, 0, reason, 'bank', ended_at, ended_at, id
    FROM bank.corrections WHERE status = 'posted' AND starts_with(credit, 'liab:user:');

DO $$ BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW bank.transactions AS %s UNION ALL SELECT wallet_id, id, kind, direction, status,
                        amount_msat, fee_msat, memo, counterparty, created_at, settled_at, reference FROM bank.adjustments',
                   rtrim(pg_get_viewdef('bank.transactions'::regclass), '; '));
END $$;

GRANT SELECT, INSERT ON bank.corrections, bank.correction_updates TO millrace_app;
GRANT UPDATE (status, approved_by, rejected_by, refusal_code, refusal_detail, decided_at, ended_at)
   ON bank.corrections TO millrace_app;
