"""The metadata of a posting with our fee."""

from engine.domain.fee import Charge
from engine.ledger.book import Fact


def fee_facts(charge: Charge | None) -> dict[str, Fact]:
    """The fee with its rule, so that it can be computed again; empty when there is no fee."""
    if charge is None or charge.fee_msat == 0:
        return {}
    return {"fee_msat": charge.fee_msat, "fee_version": charge.version, "fee_level": charge.level}
