-- Whether a worker has lately reported this node. A silent node is taken as away: no payment or invoice begins over it.
CREATE OR REPLACE FUNCTION bank.has_reported(reported_at timestamptz) RETURNS boolean LANGUAGE sql AS
$$ SELECT reported_at > clock_timestamp() - interval '30 seconds' $$;
