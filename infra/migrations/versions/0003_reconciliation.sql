-- Reconciliation: what each run found, and the cases that wait for an operator. Nothing here is money.

CREATE TABLE bank.reconciliations(
  id           text PRIMARY KEY,
  workflow_id  text NOT NULL,
  status       text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'clean', 'explained', 'differs', 'incomplete')),
  report       jsonb,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at  timestamptz,
  CHECK ((status = 'running') = (finished_at IS NULL)),
  CHECK ((status = 'running') = (report IS NULL)));
COMMENT ON COLUMN bank.reconciliations.report IS 'accounts with books, place, in flight and difference; broken rules; findings';
CREATE INDEX reconciliations_newest ON bank.reconciliations(created_at DESC, id DESC);

CREATE TABLE bank.cases(
  id          text PRIMARY KEY,
  kind        text NOT NULL,
  account     text NOT NULL,
  subject     text NOT NULL,
  amount_msat bigint NOT NULL,
  detail      text NOT NULL,
  suspects    jsonb NOT NULL,
  status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'explained', 'closed')),
  run         text NOT NULL REFERENCES bank.reconciliations,
  last_seen   text NOT NULL REFERENCES bank.reconciliations,
  vanished    boolean NOT NULL DEFAULT false,
  note        text,
  resolved_by text,
  resolved_at timestamptz,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((resolved_by IS NULL) = (status = 'open')),
  CHECK ((resolved_by IS NULL) = (note IS NULL)),
  CHECK ((resolved_by IS NULL) = (resolved_at IS NULL)));
COMMENT ON COLUMN bank.cases.subject IS 'which difference of this kind on this account: a payment hash, an amount, a rule';
COMMENT ON COLUMN bank.cases.status IS 'open: nobody has said why; explained: an operator has, and it is still found; closed: explained and gone';
-- The same difference found again is the same case, until it was explained and has gone.
CREATE UNIQUE INDEX one_case_of_a_difference ON bank.cases(kind, account, subject) WHERE status <> 'closed';
CREATE INDEX cases_newest ON bank.cases(created_at DESC, id DESC);

CREATE TABLE bank.case_updates(
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  case_id text NOT NULL REFERENCES bank.cases,
  event   text NOT NULL CHECK (event IN ('opened', 'vanished', 'found_again', 'explained', 'closed')),
  actor   text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 100),
  note    text NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX case_updates_of_case ON bank.case_updates(case_id, id);

CREATE FUNCTION bank.refuse_changes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE '% in bank.% refused: the trail is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.case_updates
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

GRANT SELECT, INSERT ON bank.reconciliations, bank.cases, bank.case_updates TO millrace_app;
GRANT UPDATE (status, report, finished_at) ON bank.reconciliations TO millrace_app;
GRANT UPDATE (status, last_seen, vanished, note, resolved_by, resolved_at) ON bank.cases TO millrace_app;
