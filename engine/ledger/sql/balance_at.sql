-- The settled sum of ledger.sums_at: the currency's smallest unit, debit +.
CREATE OR REPLACE FUNCTION ledger.balance_at(p_account bigint, p_at timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT settled FROM ledger.sums_at(p_account, p_at) $$;
