-- Withdraw links (LNURL, LUD-03): a promise to pay an amount to whoever comes with the link, as often as it says.
-- No money is held for it; a use is taken in the transaction that holds or moves the money of its payment.

CREATE TABLE bank.withdraw_links(
  id          text PRIMARY KEY,
  account_id  text NOT NULL REFERENCES bank.accounts,
  wallet_id   text NOT NULL REFERENCES bank.wallets,
  key_id      text NOT NULL REFERENCES bank.api_keys,
  amount_msat bigint NOT NULL CHECK (amount_msat > 0),
  uses        integer NOT NULL CHECK (uses BETWEEN 1 AND 1000),
  uses_left   integer NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
  memo        text CHECK (octet_length(memo) <= 639),
  expires_at  timestamptz,
  deleted_at  timestamptz,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp());
COMMENT ON COLUMN bank.withdraw_links.key_id IS 'the API key that made it; when that is revoked, the link pays no more';
CREATE INDEX withdraw_links_of_account ON bank.withdraw_links(account_id, created_at DESC, id DESC);

CREATE TABLE bank.withdraw_claims(
  payment_id  text PRIMARY KEY REFERENCES bank.payments DEFERRABLE INITIALLY DEFERRED,
  link_id     text NOT NULL REFERENCES bank.withdraw_links,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  returned_at timestamptz);
COMMENT ON COLUMN bank.withdraw_claims.returned_at IS 'when the payment failed and the link got its use back';
CREATE INDEX withdraw_claims_of_link ON bank.withdraw_claims(link_id, created_at);

GRANT SELECT, INSERT ON bank.withdraw_links, bank.withdraw_claims TO millrace_app;
GRANT UPDATE (uses_left, deleted_at) ON bank.withdraw_links TO millrace_app;
GRANT UPDATE (returned_at) ON bank.withdraw_claims TO millrace_app;
