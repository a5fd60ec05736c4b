-- Takes the turn of a payment hash: until this transaction ends nobody else opens a payment of it. Waits for whoever is opening one
-- or ending the pending one, so what is read afterwards about earlier attempts stays true.
CREATE OR REPLACE FUNCTION bank.take_turn(p_payment_hash text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('bank.payments'), ('x' || left(p_payment_hash, 8))::bit(32)::int);
    PERFORM FROM bank.payments WHERE payment_hash = p_payment_hash AND status = 'pending' FOR SHARE;
END $$;
