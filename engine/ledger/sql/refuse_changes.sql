-- The books are append-only, and only functions of the ledger write them: they set ledger.posting meanwhile. This stops accidents,
-- also the owner's. ledger.prune_counters alone may delete, and only counters. No search path is set: the function writes
-- nothing, names everything with its schema, and a setting would cost at each call.
CREATE OR REPLACE FUNCTION ledger.refuse_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE v_posting text := current_setting('ledger.posting', true);
BEGIN
    IF TG_OP = 'DELETE' AND TG_ARGV[0] = 'running sum that ends' AND v_posting = 'pruning' THEN
        RETURN NULL;
    ELSIF TG_OP IN ('DELETE', 'TRUNCATE') OR (TG_OP = 'UPDATE' AND TG_ARGV[0] = 'append-only') THEN
        RAISE '% in ledger.% refused: the books are append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    ELSIF v_posting IS DISTINCT FROM 'on' THEN
        RAISE '% in ledger.% refused: only the functions of the ledger write here', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LD405';
    END IF;
    RETURN NULL;
END $$;
