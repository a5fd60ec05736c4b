-- Keysend: a node is paid without an invoice. We choose the preimage, once, where the money is held; until the payment
-- has ended whoever knows it can claim the money on its way, so it stands here and nowhere else.
CREATE TABLE bank.keysends(
  payment_id text PRIMARY KEY REFERENCES bank.payments DEFERRABLE INITIALLY DEFERRED,
  preimage   text NOT NULL CHECK (preimage ~ '^[0-9a-f]{64}$'));

ALTER TABLE bank.payments DROP CONSTRAINT payments_check3, ADD CONSTRAINT lightning_has_a_payee
  CHECK (kind = 'internal' OR (node IS NOT NULL AND attempt IS NOT NULL AND payment_hash IS NOT NULL
         AND (bolt11 IS NOT NULL OR destination ~ '^0[23][0-9a-f]{64}$')));

-- What a payee outside shows to whoever has paid him (LUD-09), as it was checked before the payment.
CREATE TABLE bank.success_actions(
  payment_id text PRIMARY KEY REFERENCES bank.payments DEFERRABLE INITIALLY DEFERRED,
  action     jsonb NOT NULL);

GRANT SELECT, INSERT ON bank.keysends, bank.success_actions TO millrace_app;
