-- A transfer has legs. They balance and none is zero, so a transfer with one leg has two.
CREATE OR REPLACE FUNCTION ledger.check_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.entries e WHERE e.transfer_id = NEW.id) THEN
        RAISE 'transfer % has no legs', NEW.external_ref USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
