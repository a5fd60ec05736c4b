-- What a node does not take, and what its channels have shown: neither is money.

COMMENT ON COLUMN bank.payment_waits.since IS
    'for how long it has been this reason, or, while its node does not have the payment, any that keeps it from going on';

-- Sends that the node answered with an error and then did not know. A payment without any has no row.
CREATE TABLE bank.refused_sends(
  payment_id text PRIMARY KEY REFERENCES bank.payments,
  words      text NOT NULL CHECK (char_length(words) <= 500),
  times      integer NOT NULL CHECK (times > 0),
  last_at    timestamptz NOT NULL);
COMMENT ON COLUMN bank.refused_sends.words IS 'of the node, without their digits';
COMMENT ON COLUMN bank.refused_sends.times IS 'how often in a row it said the same';

-- Each channel as it was last seen: a node whose numbers fall has an old database, and proves nothing.
CREATE TABLE bank.node_channels(
  node       text NOT NULL REFERENCES bank.nodes(name),
  point      text NOT NULL CHECK (char_length(point) BETWEEN 1 AND 100),
  updates    bigint NOT NULL CHECK (updates >= 0),
  closed_at  timestamptz,
  doubt      text CHECK (char_length(doubt) <= 300),
  doubted_at timestamptz,
  PRIMARY KEY (node, point),
  CHECK ((doubt IS NULL) = (doubted_at IS NULL)));
COMMENT ON COLUMN bank.node_channels.updates IS 'the highest update number that was seen of it';

GRANT SELECT, INSERT, UPDATE ON bank.refused_sends, bank.node_channels TO millrace_app;
