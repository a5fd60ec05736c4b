-- Batches: payments between users of ours that one request asked for. All of them are settled, or there is no batch.

CREATE TABLE bank.batches(
  id          text PRIMARY KEY,
  account_id  text NOT NULL REFERENCES bank.accounts,
  wallet_id   text NOT NULL REFERENCES bank.wallets,
  count       int NOT NULL CHECK (count BETWEEN 1 AND 1000),
  total_msat  bigint NOT NULL CHECK (total_msat > 0),
  workflow_id text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.batches.total_msat IS 'of the amounts; our fees stand with the payments';

ALTER TABLE bank.payments
  ADD COLUMN batch_id    text REFERENCES bank.batches,
  ADD COLUMN batch_place smallint,
  ADD CONSTRAINT in_a_batch CHECK ((batch_id IS NULL) = (batch_place IS NULL)
      AND (batch_id IS NULL OR (kind = 'internal' AND batch_place BETWEEN 0 AND 999)));
CREATE UNIQUE INDEX payments_of_batch ON bank.payments(batch_id, batch_place) WHERE batch_id IS NOT NULL;

-- All or nothing, whoever writes: at its commit a batch has its payments, out of its wallet, and they make up its total.
CREATE FUNCTION bank.check_batch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v record;
BEGIN
    SELECT count(*) AS count, sum(p.amount_msat) AS total_msat,
           bool_and(p.account_id = NEW.account_id AND p.wallet_id = NEW.wallet_id AND p.workflow_id = NEW.workflow_id) AS same
      INTO v FROM bank.payments p WHERE p.batch_id = NEW.id;
    IF v.count <> NEW.count OR v.total_msat IS DISTINCT FROM NEW.total_msat OR NOT v.same THEN
        RAISE 'batch % is not whole', NEW.id USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER whole AFTER INSERT ON bank.batches DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION bank.check_batch();

GRANT SELECT, INSERT ON bank.batches TO millrace_app;
