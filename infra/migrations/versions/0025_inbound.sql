-- What a node's active channels could bring in at the most, as its worker last reported it; null until one has. The
-- second is the part of it that comes over announced channels: what a payer reaches without a hint in the invoice.
ALTER TABLE bank.nodes ADD COLUMN inbound_msat bigint CHECK (inbound_msat >= 0);
ALTER TABLE bank.nodes ADD COLUMN announced_inbound_msat bigint
  CHECK (announced_inbound_msat BETWEEN 0 AND inbound_msat);
-- How many ways over unannounced channels the invoice names. Those of before this migration name none.
ALTER TABLE bank.invoices ADD COLUMN route_hints smallint NOT NULL DEFAULT 0;
