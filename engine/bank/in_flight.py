"""How many payments may be in flight at once: per account, and per node."""

from dataclasses import dataclass

from engine.domain.errors import Refused
from engine.domain.ids import AccountId, NodeName
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most payments that may be in flight at once."""

    per_account: int
    per_node: int


NO_CAPS = Caps(per_account=2**31, per_node=2**31)
"""No caps: only the money bounds the number."""


async def require_room_in_tx(conn: Connection, account_id: AccountId, node: NodeName, caps: Caps) -> None:
    """Raises Refused (`too_many_in_flight`) when this payment, whose row is written, exceeds a cap.

    The account's cap is exact: the lock on its balance opens one payment after the other. Payments of several accounts
    that are opened at the same moment may exceed the node's cap by their number.
    """
    with translated():
        (counts,) = await conn.fetch(
            """SELECT (SELECT count(*) FROM bank.payments WHERE account_id = $1 AND status = 'pending') AS of_account,
                      (SELECT count(*) FROM bank.payments WHERE node = $2 AND status = 'pending') AS of_node""",
            account_id,
            node,
        )
    for cap, count, whose in (
        (caps.per_account, counts["of_account"], "this account"),
        (caps.per_node, counts["of_node"], "the bank's Lightning node"),
    ):
        if count > cap:
            detail = f"There may be {cap} payments of {whose} in flight at once; wait until some have ended."
            raise Refused(detail, code="too_many_in_flight", max_in_flight=cap)
