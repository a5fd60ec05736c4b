-- Fees: what we charge, beside each payment and receipt, with the rule by which it can be computed again.

ALTER TABLE bank.payments
  ADD COLUMN service_fee_msat bigint NOT NULL DEFAULT 0 CHECK (service_fee_msat >= 0),
  ADD COLUMN fee_version integer,
  ADD COLUMN fee_level smallint,
  ADD CONSTRAINT service_fee_within_cap CHECK (service_fee_msat <= max_fee_msat),
  ADD CONSTRAINT service_fee_has_its_rule CHECK (service_fee_msat = 0 OR (fee_version IS NOT NULL AND fee_level IS NOT NULL)),
  ADD CONSTRAINT service_fee_is_paid CHECK (status <> 'settled' OR service_fee_msat <= fee_msat);
COMMENT ON COLUMN bank.payments.fee_msat IS 'all that was paid beside the amount: routing and our fee';
COMMENT ON COLUMN bank.payments.max_fee_msat IS 'the most that may be paid beside the amount: cap of the routing and our fee';
COMMENT ON COLUMN bank.payments.service_fee_msat IS 'our fee: exact when the payment is opened, taken when it settles';
COMMENT ON COLUMN bank.payments.fee_version IS 'of the rulebook "fees" that was in force then; null for payments older than fees';
COMMENT ON COLUMN bank.payments.fee_level IS 'the payer''s level then';

ALTER TABLE bank.invoices
  ADD COLUMN service_fee_msat bigint NOT NULL DEFAULT 0 CHECK (service_fee_msat >= 0),
  ADD COLUMN fee_version integer,
  ADD COLUMN fee_level smallint,
  ADD CONSTRAINT service_fee_within_receipt CHECK (service_fee_msat <= outside_msat),
  ADD CONSTRAINT service_fee_has_its_rule CHECK (service_fee_msat = 0 OR (fee_version IS NOT NULL AND fee_level IS NOT NULL));
COMMENT ON COLUMN bank.invoices.service_fee_msat IS 'our fee, taken from outside_msat; who is paid by one of our users pays none';

-- A receipt shows what was paid and our fee; a movement in is their difference, a movement out the sum of both.
CREATE OR REPLACE VIEW bank.transactions AS
  SELECT wallet_id, id, 'payment' AS kind, 'out' AS direction, status, amount_msat, fee_msat, memo,
         destination AS counterparty, created_at, settled_at, id AS reference
    FROM bank.payments
  UNION ALL
  SELECT p.payee_wallet_id, p.id || '.in', CASE WHEN p.payment_hash IS NULL THEN 'payment' ELSE 'invoice' END, 'in',
         p.status, p.amount_msat, 0, coalesce(i.memo, p.memo), coalesce('@' || a.username, 'wallet:' || p.wallet_id),
         p.created_at, p.settled_at, coalesce(i.id, p.id)
    FROM bank.payments p JOIN bank.accounts a ON a.id = p.account_id LEFT JOIN bank.invoices i ON i.paid_by = p.id
   WHERE p.payee_wallet_id IS NOT NULL
  UNION ALL
  SELECT wallet_id, id || '.in', 'invoice', 'in', 'settled', outside_msat, service_fee_msat, memo, 'lightning', outside_at, outside_at, id
    FROM bank.invoices WHERE outside_msat > 0;

SELECT ledger.open_account('income:transfer-fee', 'income', 'BTC', NULL, 'append');
