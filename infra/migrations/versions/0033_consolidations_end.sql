-- A payout without members owes nobody anything. When its coins are gone for good it ends, and the books take its fee back.
ALTER TABLE bank.payouts DROP CONSTRAINT payouts_check3, ADD CONSTRAINT payouts_booked_check CHECK (
  booked_ref IS NULL OR status IN ('broadcast', 'confirmed', 'final') OR (kind <> 'batch' AND status = 'dissolved'));
