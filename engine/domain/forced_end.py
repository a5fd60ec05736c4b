"""How two operators end a payment whose node can no longer tell its end. Rules that need no books.

    failed     nothing was paid: all that is held is given back
    settled    the payee was paid, with the preimage as proof: amount, fee and our fee are booked

Operators can end a payment only while it needs an operator, its node has not ended it, and its node shows no HTLC of
it: nobody decides about a payment on its way. A payment that its node never had can be decided whatever its reason to
wait.
"""

import hashlib
import re
from enum import StrEnum
from typing import Final

from engine.domain.errors import Invalid
from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from engine.domain.sending import IN_DOUBT, LOST_ATTEMPT, OVERDUE

RELEASED: Final = "released_by_operators"
"""The failure code of a payment that ended so."""
REASONS: Final = frozenset({"node_forgot", "node_replaced", LOST_ATTEMPT, IN_DOUBT, OVERDUE})
"""The reasons to wait, with an operator needed, for which a payment that its node has had can be decided."""

_HEX_32_BYTES = re.compile("[0-9a-f]{64}")


class DecisionEnd(StrEnum):
    """How the payment is to end."""

    SETTLED = "settled"
    FAILED = "failed"


class DecisionStatus(StrEnum):
    """Where it stands. Only `proposed` ever changes."""

    PROPOSED = "proposed"
    DONE = "done"
    REJECTED = "rejected"


def check_end(
    end: DecisionEnd, *, preimage: str | None, fee_msat: Msat, payment_hash: PaymentHash, routing_cap_msat: Msat
) -> None:
    """Raises Invalid for a settlement without its proof, a proof of another payment, and an impossible fee."""
    if end is DecisionEnd.FAILED:
        if preimage is not None or fee_msat:
            raise Invalid("What has failed has neither preimage nor fee.", field="preimage" if preimage else "fee_msat")
        return
    if preimage is None or not _HEX_32_BYTES.fullmatch(preimage):
        raise Invalid("'settled' needs the preimage, 64 lower-case hex digits.", field="preimage")
    if hashlib.sha256(bytes.fromhex(preimage)).hexdigest() != payment_hash:
        raise Invalid("This is not the preimage of the payment's hash.", field="preimage")
    if fee_msat > routing_cap_msat:
        raise Invalid(f"At most {routing_cap_msat} msat were held for routing.", field="fee_msat")
