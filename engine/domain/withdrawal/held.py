"""A withdrawal as its postings need it, and what leaves its owner's wallet when it is paid."""

from dataclasses import dataclass

from engine.domain.errors import InvariantBroken
from engine.domain.fee import Charge
from engine.domain.ids import WithdrawalId
from engine.domain.money import Msat, Sat, sat_to_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Money that is held, or was taken, for a withdrawal."""

    id: WithdrawalId
    held_msat: Msat
    service_fee_msat: Msat
    fee_version: int
    fee_level: int
    workflow_id: str
    memo: str | None = None

    @property
    def charge(self) -> Charge:
        """Our fee, with its rule."""
        return Charge(fee_msat=self.service_fee_msat, version=self.fee_version, level=self.fee_level)

    def taken_msat(self, *, paid_sat: Sat, miner_fee_sat: Sat, takes_all: bool) -> Msat:
        """What leaves the wallet: output, own share, our fee. `takes_all`: the fees come out of the amount, and
        nothing of the hold is left.

        Raises InvariantBroken for more than is held, and for less where all of it leaves.
        """
        taken_msat = Msat(sat_to_msat(Sat(paid_sat + miner_fee_sat)) + self.service_fee_msat)
        if taken_msat > self.held_msat or (takes_all and taken_msat != self.held_msat):
            raise InvariantBroken(f"{self.id}: {taken_msat} msat would leave, and {self.held_msat} msat are held")
        return taken_msat
