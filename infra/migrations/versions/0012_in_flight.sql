-- Payments in flight: what each waits for, and the proof by which a lost attempt is released.

-- The last that a worker saw of a payment that does not end by itself. A payment without trouble has no row.
CREATE TABLE bank.payment_waits(
  payment_id     text PRIMARY KEY REFERENCES bank.payments,
  reason         text NOT NULL CHECK (reason ~ '^[a-z_]{1,50}$'),
  detail         text NOT NULL CHECK (char_length(detail) <= 500),
  needs_operator boolean NOT NULL,
  since          timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.payment_waits.since IS 'for how long it has been this reason';

-- "In flight at the node, and in none of its channels": one line per look at a new height.
CREATE TABLE bank.lost_sightings(
  payment_id    text NOT NULL REFERENCES bank.payments,
  height        integer NOT NULL CHECK (height > 0),
  time_lock     integer NOT NULL CHECK (time_lock > 0),
  payment_index bigint NOT NULL CHECK (payment_index > 0),
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (payment_id, height));
COMMENT ON COLUMN bank.lost_sightings.time_lock IS 'the last block until which any attempt of the payment could be taken';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.lost_sightings
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

CREATE INDEX payments_in_flight_of_account ON bank.payments(account_id) WHERE status = 'pending';

GRANT SELECT, INSERT ON bank.payment_waits, bank.lost_sightings TO millrace_app;
GRANT UPDATE ON bank.payment_waits TO millrace_app;
