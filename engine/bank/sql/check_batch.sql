-- At its commit a batch has all of its payments, out of its wallet, and they make up its total, whoever writes.
CREATE OR REPLACE FUNCTION bank.check_batch() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
