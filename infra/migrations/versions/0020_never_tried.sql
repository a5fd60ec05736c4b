-- A payment that its node took and never tried has no time lock, and is proven lost by the same sightings.
ALTER TABLE bank.lost_sightings DROP CONSTRAINT lost_sightings_time_lock_check;
ALTER TABLE bank.lost_sightings ADD CONSTRAINT lost_sightings_time_lock_check CHECK (time_lock >= 0);
COMMENT ON COLUMN bank.lost_sightings.time_lock IS
  'the last block until which any attempt of the payment could be taken; 0: there is none';
