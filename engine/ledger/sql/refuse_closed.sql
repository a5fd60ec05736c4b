-- Refuses to post while the clock stands before the last closing: the entry would belong to a closed past.
CREATE OR REPLACE FUNCTION ledger.refuse_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF clock_timestamp() <= (SELECT max(at) FROM ledger.closing_times) THEN
        RAISE 'the clock of the database stands before the last closing' USING ERRCODE = 'LD406';
    END IF;
    RETURN NULL;
END $$;
