-- What is available on these accounts, in their normal direction. Their balances are locked until the transaction ends, in the
-- order of their ids as by ledger.post: for a posting that takes all there is.
CREATE OR REPLACE FUNCTION ledger.lock_balances(p_accounts bigint[]) RETURNS TABLE (account_id bigint, available bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.account_id, b.available - b.floor FROM ledger.balances b WHERE b.account_id = ANY (p_accounts) ORDER BY b.account_id FOR UPDATE
$$;
