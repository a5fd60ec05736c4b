-- A key, the key that made it, and so on up. The API makes none of more than 16 generations.
CREATE OR REPLACE FUNCTION bank.key_line(p_key text) RETURNS TABLE(key_id text, account_id text, generation int)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE line AS (
    SELECT k.id, k.account_id, k.made_by, 1 AS generation FROM bank.api_keys k WHERE k.id = p_key
    UNION ALL
    SELECT k.id, k.account_id, k.made_by, l.generation + 1
      FROM line l JOIN bank.api_keys k ON k.id = l.made_by WHERE l.generation < 100)
SELECT id, account_id, generation FROM line $$;
