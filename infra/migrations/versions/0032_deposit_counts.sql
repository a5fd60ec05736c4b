-- What a deposit counts towards the limits of its owner. A reversal gives nothing back, and the credit after it counts
-- only what exceeds this: another version of the transaction may pay more.
ALTER TABLE bank.deposits ADD COLUMN counted_msat bigint NOT NULL DEFAULT 0 CHECK (counted_msat >= 0);
UPDATE bank.deposits SET counted_msat = amount_sat * 1000 WHERE fee_version IS NOT NULL;
