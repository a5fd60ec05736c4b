-- The node's first word on an attempt. From then on it is never sent again, whatever the node may know of it later.
CREATE TABLE bank.begun_sends(
  payment_id text PRIMARY KEY REFERENCES bank.payments,
  at         timestamptz NOT NULL DEFAULT clock_timestamp());

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.begun_sends
    FOR EACH STATEMENT EXECUTE FUNCTION bank.refuse_changes();

GRANT SELECT, INSERT ON bank.begun_sends TO millrace_app;
