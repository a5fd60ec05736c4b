-- The id of the transfer of this reference. The hash is the caller's claim, legs and relations are the fact: both must match,
-- else LD409.
CREATE OR REPLACE FUNCTION ledger.find_repeated(p_ref text, p_hash bytea, p_template text, p_phase text, p_relates_to text[],
    p_accounts bigint[], p_amounts bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v ledger.transfers;
BEGIN
    SELECT * INTO STRICT v FROM ledger.transfers WHERE external_ref = p_ref;
    IF v.payload_hash IS DISTINCT FROM p_hash OR v.template IS DISTINCT FROM p_template OR v.phase IS DISTINCT FROM p_phase
       OR EXISTS (SELECT FROM unnest(p_accounts, p_amounts) l(a, m) FULL JOIN
                      (SELECT account_id, amount FROM ledger.entries
                        WHERE transfer_id = v.id AND layer = (v.phase = 'hold')::int AND v.phase NOT IN ('void', 'expire')) e
                      ON e.account_id = l.a WHERE e.amount IS DISTINCT FROM l.m)
       OR EXISTS (SELECT FROM unnest(p_relates_to) g(ref) FULL JOIN
                      (SELECT t.external_ref FROM ledger.resolutions r JOIN ledger.transfers t ON t.id = r.target_id WHERE r.transfer_id = v.id) o
                      ON o.external_ref = g.ref WHERE o.external_ref IS DISTINCT FROM g.ref) THEN
        RAISE 'reference % was used for another transfer', p_ref
            USING ERRCODE = 'LD409', DETAIL = jsonb_build_object('reference', p_ref, 'transfer_id', v.id)::text;
    END IF;
    RETURN v.id;
END $$;
