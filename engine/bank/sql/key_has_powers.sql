-- Whether the roles of a key count: its account and those of all keys that it comes from are active.
CREATE OR REPLACE FUNCTION bank.key_has_powers(p_key text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT NOT EXISTS (SELECT FROM bank.key_line(p_key) l JOIN bank.accounts a ON a.id = l.account_id WHERE a.status <> 'active') $$;
