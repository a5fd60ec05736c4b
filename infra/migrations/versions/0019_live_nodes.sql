-- A node of which a worker has told nothing for so long is held to be away: no payment or invoice is begun over it.
CREATE FUNCTION bank.has_reported(reported_at timestamptz) RETURNS boolean LANGUAGE sql AS
$$ SELECT reported_at > clock_timestamp() - interval '30 seconds' $$;
REVOKE ALL ON FUNCTION bank.has_reported FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bank.has_reported TO millrace_app;
