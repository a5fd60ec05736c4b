-- A key is claimed for what a transaction is about to make. When a rule refuses that, the claim becomes the refusal before the
-- commit. What was committed under a key never changes.
CREATE OR REPLACE FUNCTION bank.keep_answers() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.xmin <> pg_current_xact_id()::xid OR OLD.resource_id IS NULL OR NEW.refusal IS NULL
       OR (NEW.account_id, NEW.key, NEW.body_hash) <> (OLD.account_id, OLD.key, OLD.body_hash) THEN
        RAISE 'the answer of a key never changes' USING ERRCODE = 'LD405';
    END IF;
    RETURN NEW;
END $$;
