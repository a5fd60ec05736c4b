-- Withdrawals are the sixth part of what moves in a wallet, and those that stay within the bank the seventh: their payees
-- see them come in. Their orders are those of the indexes withdrawals_of_wallet and withdrawals_to_wallet.
-- A wallet changes by amount and fee together: until its place in a payout is known, that is the amount that was asked.
CREATE VIEW bank.transactions_withdrawn AS
  SELECT wallet_id, id, 'withdrawal' AS kind, 'out' AS direction,
         CASE status WHEN 'broadcast' THEN 'settled' WHEN 'confirmed' THEN 'settled' WHEN 'cancelled' THEN 'cancelled'
                     WHEN 'failed' THEN 'failed' ELSE 'pending' END AS status,
         CASE WHEN payout_id IS NOT NULL THEN paid_sat * 1000
              WHEN payee_wallet_id IS NOT NULL AND status = 'confirmed' THEN held_msat - service_fee_msat
              ELSE amount_sat * 1000 END AS amount_msat,
         CASE WHEN payout_id IS NOT NULL THEN miner_fee_sat * 1000 + service_fee_msat
              WHEN payee_wallet_id IS NOT NULL AND status = 'confirmed' THEN service_fee_msat ELSE 0 END AS fee_msat,
         memo, address AS counterparty, created_at,
         CASE WHEN status IN ('broadcast', 'confirmed') THEN coalesce(broadcast_at, ended_at) END AS settled_at,
         id AS reference, id AS key
    FROM bank.withdrawals;
CREATE VIEW bank.transactions_withdrawn_by_users AS
  SELECT w.payee_wallet_id AS wallet_id, w.id || '.in' AS id, 'withdrawal' AS kind, 'in' AS direction,
         'settled' AS status, w.held_msat - w.service_fee_msat AS amount_msat, 0::bigint AS fee_msat, NULL::text AS memo,
         coalesce((SELECT '@' || a.username FROM bank.accounts a WHERE a.id = w.account_id), 'wallet:' || w.wallet_id)
           AS counterparty, w.created_at, coalesce(w.broadcast_at, w.ended_at) AS settled_at,
         w.id AS reference, w.id AS key
    FROM bank.withdrawals w
   WHERE w.payee_wallet_id IS NOT NULL AND w.status = 'confirmed';
CREATE OR REPLACE VIEW bank.transactions AS
  SELECT * FROM bank.transactions_paid UNION ALL
  SELECT * FROM bank.transactions_paid_by_users UNION ALL
  SELECT * FROM bank.transactions_received UNION ALL
  SELECT * FROM bank.transactions_entered UNION ALL
  SELECT * FROM bank.transactions_deposited UNION ALL
  SELECT * FROM bank.transactions_withdrawn UNION ALL
  SELECT * FROM bank.transactions_withdrawn_by_users;
GRANT SELECT ON bank.transactions_withdrawn, bank.transactions_withdrawn_by_users TO millrace_app;

-- What operators look for: who waits for them, and which payouts cannot go on.
CREATE INDEX withdrawals_unapproved ON bank.withdrawals(created_at DESC, id DESC) WHERE status = 'queued' AND approval = 'needed';
CREATE INDEX withdrawals_on_hold ON bank.withdrawals(created_at DESC, id DESC) WHERE status = 'queued' AND on_hold;
CREATE INDEX payouts_of_parent ON bank.payouts(parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX withdrawal_decisions_of ON bank.withdrawal_decisions(withdrawal_id, created_at DESC) WHERE withdrawal_id IS NOT NULL;
CREATE INDEX payout_decisions_of ON bank.withdrawal_decisions(payout_id, created_at DESC) WHERE payout_id IS NOT NULL;
