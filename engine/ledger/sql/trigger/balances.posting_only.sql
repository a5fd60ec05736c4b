CREATE TRIGGER posting_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger.balances
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_changes('running sum');
