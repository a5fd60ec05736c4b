-- Two payments of one hash that were opened in the same moment could get the same number, and with it the same hold. What such
-- a pair has left behind depends on how the second one ended:
--   failed     nothing is missing: the hold was taken once and given back once. It gets a number of its own, which has no hold.
--   pending    it may be paid, and nothing is held for it. A migration cannot decide that: docs/runbooks/payment-without-hold.md
DO $$
DECLARE v_pending text; v record;
BEGIN
    SELECT string_agg(p.id, ', ' ORDER BY p.id) INTO v_pending FROM bank.payments p
     WHERE p.status <> 'failed' AND EXISTS (
           SELECT FROM bank.payments o WHERE o.payment_hash = p.payment_hash AND o.attempt = p.attempt AND o.id <> p.id);
    IF v_pending IS NOT NULL THEN
        RAISE 'nothing is held for these payments, which are not failed: %', v_pending USING
            HINT = 'End them first, as docs/runbooks/payment-without-hold.md says, and start the migration again.';
    END IF;
    FOR v IN
        SELECT id, payment_hash, attempt FROM (
            SELECT p.*, row_number() OVER (PARTITION BY payment_hash, attempt ORDER BY created_at, id) AS place
              FROM bank.payments p WHERE payment_hash IS NOT NULL AND attempt IS NOT NULL) numbered
         WHERE place > 1 ORDER BY created_at, id
    LOOP
        UPDATE bank.payments SET attempt = (SELECT max(o.attempt) + 1 FROM bank.payments o WHERE o.payment_hash = v.payment_hash)
         WHERE id = v.id;
        RAISE NOTICE 'payment % shared the hold of attempt % of %, and gets a number of its own', v.id, v.attempt, v.payment_hash;
    END LOOP;
END $$;

-- An attempt of a hash is one payment's, and so is its hold. Takes the place of the index that numbered them.
CREATE UNIQUE INDEX one_payment_of_an_attempt ON bank.payments (payment_hash, attempt) WHERE payment_hash IS NOT NULL;
DROP INDEX bank.payments_of_hash;

-- The turn of a hash: until this transaction ends nobody else opens a payment of it. Waits for whoever is opening one, and for
-- whoever is ending the pending one, so that what is read afterwards of earlier attempts stays true.
CREATE FUNCTION bank.take_turn(p_payment_hash text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('bank.payments'), ('x' || left(p_payment_hash, 8))::bit(32)::int);
    PERFORM FROM bank.payments WHERE payment_hash = p_payment_hash AND status = 'pending' FOR SHARE;
END $$;
REVOKE ALL ON FUNCTION bank.take_turn FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bank.take_turn TO millrace_app;

-- What of a settled payment the payee has taken, where that is another amount than was asked for; else nothing.
ALTER TABLE bank.payments ADD COLUMN delivered_msat bigint,
    ADD CONSTRAINT delivered_another_amount CHECK (delivered_msat IS NULL
        OR (kind = 'lightning' AND status = 'settled' AND delivered_msat > 0 AND delivered_msat <> amount_msat));

-- A wallet's movements show what has left it.
CREATE OR REPLACE VIEW bank.transactions_paid AS
  SELECT wallet_id, id, 'payment' AS kind, 'out' AS direction, status, coalesce(delivered_msat, amount_msat) AS amount_msat,
         fee_msat, memo, destination AS counterparty, created_at, settled_at, id AS reference, id AS key
    FROM bank.payments;
