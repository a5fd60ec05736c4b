-- When a node and its accounts last told the same, and of which channels they told it. No money: a note to compare with.

CREATE TABLE bank.agreements(
  node      text PRIMARY KEY REFERENCES bank.nodes,
  channels  jsonb NOT NULL,
  agreed_at timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.agreements.channels IS 'channel point, whether we opened it, what escrow the books hold for it, fee rate';

GRANT SELECT, INSERT ON bank.agreements TO millrace_app;
GRANT UPDATE (channels, agreed_at) ON bank.agreements TO millrace_app;
