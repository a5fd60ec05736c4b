-- Legs come all at once: balanced per currency and layer, and no leg is added to a transfer later.
CREATE OR REPLACE FUNCTION ledger.check_legs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM new_legs GROUP BY transfer_id, currency, layer HAVING sum(amount) <> 0) THEN
        RAISE 'unbalanced: the legs do not sum to zero per currency and layer' USING ERRCODE = 'LD001';
    ELSIF (SELECT count(*) FROM new_legs) <>
          (SELECT count(*) FROM ledger.entries e WHERE e.transfer_id = ANY (ARRAY(SELECT transfer_id FROM new_legs))) THEN
        RAISE 'legs added to a transfer that has its legs' USING ERRCODE = 'LD001';
    END IF;
    RETURN NULL;
END $$;
