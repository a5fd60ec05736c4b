-- Which key made a key. What operators made stands in the audit trail; of older keys that users made themselves it is not
-- known, and the bootstrap key, which has no row, is nobody's child.
ALTER TABLE bank.api_keys ADD COLUMN made_by text REFERENCES bank.api_keys;
COMMENT ON COLUMN bank.api_keys.made_by IS 'the key that made it; NULL: the bootstrap key, or not known (before migration 0024)';
UPDATE bank.api_keys k SET made_by = m.id
  FROM bank.audit a JOIN bank.api_keys m ON m.id = a.key_id
 WHERE a.action = 'key.make' AND a.subject = k.id AND m.id <> k.id;
CREATE INDEX api_keys_made_by ON bank.api_keys(made_by) WHERE made_by IS NOT NULL;
-- Nobody's maker is ever another one.
REVOKE UPDATE ON bank.api_keys FROM millrace_app;
GRANT UPDATE (revoked_at) ON bank.api_keys TO millrace_app;

-- A key, the key that made it, and so on up. The API makes none of more than 16 generations.
CREATE FUNCTION bank.key_line(p_key text) RETURNS TABLE(key_id text, account_id text, generation int)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE line AS (
    SELECT k.id, k.account_id, k.made_by, 1 AS generation FROM bank.api_keys k WHERE k.id = p_key
    UNION ALL
    SELECT k.id, k.account_id, k.made_by, l.generation + 1
      FROM line l JOIN bank.api_keys k ON k.id = l.made_by WHERE l.generation < 100)
SELECT id, account_id, generation FROM line $$;

-- Whether the roles of a key count: its account and those of all keys that it comes from are active.
CREATE FUNCTION bank.key_has_powers(p_key text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT NOT EXISTS (SELECT FROM bank.key_line(p_key) l JOIN bank.accounts a ON a.id = l.account_id WHERE a.status <> 'active') $$;

-- Whether two keys are in one person's hands: they are of one account, or come from keys of one.
CREATE FUNCTION bank.are_of_one_person(p_key text, p_other text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT EXISTS (SELECT FROM bank.key_line(p_key) a JOIN bank.key_line(p_other) b ON a.account_id = b.account_id) $$;

REVOKE ALL ON FUNCTION bank.key_line, bank.key_has_powers, bank.are_of_one_person FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bank.key_line, bank.key_has_powers, bank.are_of_one_person TO millrace_app;

-- Who proposed something is asked when it is approved: by its subject.
CREATE INDEX audit_of_subject ON bank.audit(subject, id) WHERE subject IS NOT NULL;
