-- What was accepted and no worker has opened yet, whether it rides a lane or not, and batches as well: the whole request,
-- so that its workflow can be begun again whatever becomes of the first one. Forgotten once the key has its answer.
ALTER TABLE bank.boarded_payments ADD COLUMN kind text NOT NULL DEFAULT 'payment' CHECK (kind IN ('payment', 'batch')),
                                  ADD COLUMN request jsonb CHECK (jsonb_typeof(request) = 'object');
COMMENT ON COLUMN bank.boarded_payments.payment_id IS 'of the payment, or of the batch';
COMMENT ON COLUMN bank.boarded_payments.request IS 'until it is opened; none where an older release noted it';
CREATE INDEX boarded_payments_unopened ON bank.boarded_payments(created_at, payment_id) WHERE request IS NOT NULL;
GRANT UPDATE (request) ON bank.boarded_payments TO millrace_app;

-- A note that cannot be worked off waits for its next turn, ever longer, and holds no other up.
ALTER TABLE bank.node_cancellations ADD COLUMN tries integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
                                    ADD COLUMN due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
                                    ADD COLUMN problem text;
COMMENT ON COLUMN bank.node_cancellations.problem IS 'why the last try failed';
DROP INDEX bank.node_cancellations_due;
CREATE INDEX node_cancellations_due ON bank.node_cancellations(node, due_at) WHERE done_at IS NULL;

-- Receipts up to credited_index are in the books; those up to handed_on_index had a workflow when the sweep last looked.
ALTER TABLE bank.nodes ADD COLUMN credited_index bigint NOT NULL DEFAULT 0 CHECK (credited_index >= 0),
                       ADD COLUMN handed_on_index bigint NOT NULL DEFAULT 0 CHECK (handed_on_index >= 0);
UPDATE bank.nodes SET credited_index = settle_index, handed_on_index = settle_index;

-- What the janitor walks through, each minute.
CREATE INDEX corrections_open ON bank.corrections(created_at, id) WHERE status IN ('proposed', 'approved');
CREATE INDEX reconciliations_running ON bank.reconciliations(created_at, id) WHERE status = 'running';

-- What a reconciliation carries, and how far back that reaches.
CREATE INDEX cases_explained ON bank.cases(created_at, id) WHERE status = 'explained';
