-- The last settled version of a locked account before a moment, or NULL. Among the versions of the day before the moment it is the
-- highest, so a clock that was set back by less than a day never changes the order of versions.
CREATE OR REPLACE FUNCTION ledger.version_before(p_account bigint, p_moment timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT coalesce(
        (SELECT n.version FROM (SELECT e.version, e.posted_at FROM ledger.entries e
                                 WHERE e.account_id = p_account AND e.layer = 0 AND e.version IS NOT NULL
                                 ORDER BY e.version DESC LIMIT 1) n WHERE n.posted_at < p_moment),
        (SELECT max(e.version + 0) FROM ledger.entries e WHERE e.account_id = p_account AND e.layer = 0
            AND e.posted_at < p_moment AND e.posted_at >= p_moment - interval '1 day'),
        (SELECT e.version FROM ledger.entries e WHERE e.account_id = p_account AND e.layer = 0 AND e.posted_at < p_moment
          ORDER BY e.posted_at DESC, e.version DESC LIMIT 1)) $$;
