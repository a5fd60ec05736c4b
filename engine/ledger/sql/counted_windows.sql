-- A day, a week, thirty days, in seconds.
CREATE OR REPLACE FUNCTION ledger.counted_windows() RETURNS int[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY[86400, 604800, 2592000];
