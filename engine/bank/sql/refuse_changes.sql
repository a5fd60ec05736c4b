-- Trails are append-only.
CREATE OR REPLACE FUNCTION bank.refuse_changes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE '% in bank.% refused: the trail is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
END $$;
