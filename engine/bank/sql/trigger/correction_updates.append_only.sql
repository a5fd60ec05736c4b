CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.correction_updates
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();
