-- What is wrong with a request, or NULL. The caller assigns the answer: an assignment needs no statement of its own.
CREATE OR REPLACE FUNCTION ledger.find_malformed(p_phase text, p_relates_to text[], p_accounts bigint[], p_amounts bigint[],
    p_counts_account bigint, p_count_kinds text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_legs int := cardinality(p_accounts);
    v_related int := cardinality(p_relates_to);
    v_double boolean := p_accounts[1] = p_accounts[2];
BEGIN
    IF v_legs > 2 THEN
        v_double := (SELECT count(DISTINCT a) <> v_legs FROM unnest(p_accounts) a);
    END IF;
    IF v_legs IS NULL OR v_related IS NULL OR v_legs IS DISTINCT FROM cardinality(p_amounts) OR v_legs > 5000 OR v_related > 1000
       OR v_double OR array_position(p_accounts, NULL) IS NOT NULL OR array_position(p_amounts, NULL) IS NOT NULL
       OR 0 = ANY (p_amounts) THEN
        RETURN 'legs are missing, zero, double or too many';
    END IF;
    IF NOT coalesce(CASE WHEN p_phase IN ('post', 'hold')    THEN v_legs >= 2 AND v_related = 0
                         WHEN p_phase = 'settle'             THEN v_legs >= 2 AND v_related >= 1
                         WHEN p_phase = 'reverse'            THEN v_legs >= 2 AND v_related = 1
                         WHEN p_phase IN ('void', 'expire')  THEN v_legs = 0 AND v_related >= 1 END, false) THEN
        RETURN format('phase %s cannot have %s legs and relate to %s transfers', p_phase, v_legs, v_related);
    END IF;
    IF p_counts_account IS NOT NULL AND (p_counts_account <> ALL (p_accounts)
       OR (SELECT count(DISTINCT k) FROM unnest(p_count_kinds) k) IS DISTINCT FROM cardinality(p_count_kinds)::bigint) THEN
        RETURN 'what counts against limits counts on an account that has a leg, once per kind';
    END IF;
    RETURN NULL;
END $$;
