"""Where a withdrawal goes: the address with what it is on chain."""

from dataclasses import dataclass

from engine.domain.address import read_address
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.money import Sat
from engine.domain.withdrawal.script import dust_sat, output_script, output_weight
from engine.domain.withdrawal.weight import fee_sat


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that was read, and its output script."""

    address: str
    """Segwit addresses in lower case, as the books have those of our users."""
    script: bytes

    @property
    def dust_sat(self) -> Sat:
        """The least amount that nodes relay to it."""
        return dust_sat(self.script)

    def least_share_sat(self, rate_sat_kvb: int) -> Sat:
        """The share of its output alone at this rate."""
        return fee_sat(output_weight(self.script), rate_sat_kvb)


def read_target(address: str, script: str) -> Target:
    """Read the address once more. Raises Invalid (`invalid_destination`) for none, InvariantBroken unless the script,
    in hex, is the one that pays it."""
    try:
        target = Target(address=read_address(address).text, script=output_script(address))
    except ValueError as error:
        raise Invalid(
            f"This is no address that can be paid: {error}.", code="invalid_destination", field="address"
        ) from error
    if target.script.hex() != script:
        raise InvariantBroken(f"the script {script[:100]} does not pay {target.address}")
    return target
