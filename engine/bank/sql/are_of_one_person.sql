-- Whether two keys are in one person's hands: they belong to one account, or come from keys of one account.
CREATE OR REPLACE FUNCTION bank.are_of_one_person(p_key text, p_other text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT EXISTS (SELECT FROM bank.key_line(p_key) a JOIN bank.key_line(p_other) b ON a.account_id = b.account_id) $$;
