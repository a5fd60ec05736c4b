-- What boards a lane is remembered with its request, so that another one with the same key is a conflict at once.
ALTER TABLE bank.boarded_payments ADD COLUMN body_hash bytea CHECK (octet_length(body_hash) = 32);
COMMENT ON COLUMN bank.boarded_payments.body_hash IS 'of the request; none where an older release noted it';
