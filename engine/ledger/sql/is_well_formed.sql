-- The CHECK of ledger.transfers. PostgreSQL reads and plans every CHECK anew for each statement: eleven of them were a fifth of the
-- cost of a posting. A function is compiled once per connection.
CREATE OR REPLACE FUNCTION ledger.is_well_formed(p_ref text, p_hash bytea, p_template text, p_phase text, p_actor text, p_workflow_id text,
    p_description text, p_metadata jsonb, p_effective_on date, p_expires_at timestamptz, p_counts_account bigint, p_kinds text[],
    p_amounts bigint[], p_received_at timestamptz) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN length(p_ref) BETWEEN 1 AND 200 AND octet_length(p_hash) = 32 AND length(p_template) BETWEEN 1 AND 200
       AND p_phase IN ('post', 'hold', 'settle', 'void', 'expire', 'reverse') AND length(p_actor) BETWEEN 1 AND 200
       AND (p_workflow_id IS NULL OR length(p_workflow_id) <= 500) AND (p_description IS NULL OR length(p_description) <= 1000)
       AND jsonb_typeof(p_metadata) = 'object' AND octet_length(p_metadata::text) <= 8192
       AND (p_expires_at IS NULL OR p_phase = 'hold')
       AND p_effective_on <= (p_received_at AT TIME ZONE 'UTC')::date
       AND num_nulls(p_counts_account, p_kinds, p_amounts) IN (0, 3)
       AND (p_kinds IS NULL OR (p_phase IN ('post', 'hold') AND cardinality(p_kinds) BETWEEN 1 AND 100
            AND cardinality(p_kinds) = cardinality(p_amounts) AND array_position(p_kinds, NULL) IS NULL
            AND array_position(p_amounts, NULL) IS NULL AND 0 < ALL (p_amounts)));
END $$;
