-- Operators: finer roles, the trail of what they did, and the rules they set (fees, limits), each version kept for ever.

ALTER TABLE bank.api_keys DROP CONSTRAINT api_keys_scopes_check, ADD CONSTRAINT api_keys_scopes_check
  CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'receive', 'send', 'admin', 'support', 'treasury', 'finance']);

CREATE TABLE bank.audit(
  id         bigint PRIMARY KEY,
  at         timestamptz NOT NULL,
  operator   text NOT NULL CHECK (char_length(operator) BETWEEN 1 AND 100),
  key_id     text NOT NULL CHECK (char_length(key_id) BETWEEN 1 AND 100),
  action     text NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
  account_id text,
  subject    text,
  detail     jsonb NOT NULL CHECK (jsonb_typeof(detail) = 'object' AND octet_length(detail::text) <= 65536));
COMMENT ON COLUMN bank.audit.operator IS 'whose key it was: an account, or "admin" for the bootstrap key';
COMMENT ON COLUMN bank.audit.account_id IS 'the user''s account that it was done to';
COMMENT ON COLUMN bank.audit.subject IS 'what else it was done to: a case, a correction, a key';
CREATE INDEX audit_of_account ON bank.audit(account_id, id) WHERE account_id IS NOT NULL;
CREATE INDEX audit_of_operator ON bank.audit(operator, id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.audit
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

-- Numbers without gaps in the order of the commits: whoever writes holds the lock until its transaction ends.
CREATE FUNCTION bank.record_act(p_operator text, p_key_id text, p_action text, p_account text, p_subject text, p_detail jsonb)
    RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE v_id bigint; v_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('bank.audit'));
    SELECT coalesce(max(id), 0) + 1, greatest(max(at), clock_timestamp()) INTO v_id, v_at FROM bank.audit;
    INSERT INTO bank.audit(id, at, operator, key_id, action, account_id, subject, detail)
        VALUES (v_id, v_at, p_operator, p_key_id, p_action, p_account, p_subject, p_detail);
    RETURN v_id;
END $$;

CREATE TABLE bank.rulebooks(
  name       text NOT NULL CHECK (name IN ('fees', 'limits')),
  version    integer NOT NULL CHECK (version > 0),
  content    jsonb NOT NULL CHECK (jsonb_typeof(content) = 'object' AND octet_length(content::text) <= 65536),
  note       text NOT NULL CHECK (char_length(note) BETWEEN 1 AND 1000),
  set_by     text NOT NULL CHECK (char_length(set_by) BETWEEN 1 AND 100),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version));
COMMENT ON TABLE bank.rulebooks IS 'the highest version of a name is in force; what was posted under an older one can be computed again';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.rulebooks
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

INSERT INTO bank.rulebooks(name, version, content, note, set_by) VALUES
  ('fees', 1, '{}', 'no fees', 'migration'),
  ('limits', 1, '{}', 'no limits', 'migration');

GRANT SELECT, INSERT ON bank.audit, bank.rulebooks TO millrace_app;
GRANT EXECUTE ON FUNCTION bank.record_act TO millrace_app;
