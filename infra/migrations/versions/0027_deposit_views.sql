-- Deposits are the fifth part of what moves in a wallet. Its order is that of the index deposits_of_wallet.
CREATE VIEW bank.transactions_deposited AS
  SELECT wallet_id, id, 'deposit' AS kind, 'in' AS direction,
         CASE status WHEN 'credited' THEN 'settled' WHEN 'reversed' THEN 'reversed' WHEN 'dropped' THEN 'cancelled'
                     WHEN 'below_minimum' THEN 'failed' ELSE 'pending' END AS status,
         amount_sat * 1000 AS amount_msat, CASE status WHEN 'credited' THEN fee_msat ELSE 0 END AS fee_msat,
         NULL::text AS memo, address AS counterparty, created_at, credited_at AS settled_at, id AS reference, id AS key
    FROM bank.deposits
   WHERE wallet_id IS NOT NULL AND status <> 'unattributed';
CREATE OR REPLACE VIEW bank.transactions AS
  SELECT * FROM bank.transactions_paid UNION ALL
  SELECT * FROM bank.transactions_paid_by_users UNION ALL
  SELECT * FROM bank.transactions_received UNION ALL
  SELECT * FROM bank.transactions_entered UNION ALL
  SELECT * FROM bank.transactions_deposited;
GRANT SELECT ON bank.transactions_deposited TO millrace_app;
