CREATE TRIGGER not_in_the_closed_past BEFORE INSERT ON ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_closed();
