-- Raises LD429. A count that no bigint holds is beyond every limit, and is refused as one.
CREATE OR REPLACE FUNCTION ledger.refuse_count(p_account bigint, p_kind text, p_window_s int, p_most bigint, p_used numeric, p_asked bigint)
    RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'limit of % per % s exceeded', p_most, p_window_s USING ERRCODE = 'LD429', DETAIL = jsonb_build_object('account_id', p_account,
        'kind', p_kind, 'window_s', p_window_s, 'limit', p_most, 'used', p_used, 'asked', p_asked)::text;
END $$;
