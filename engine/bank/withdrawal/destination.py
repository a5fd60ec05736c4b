"""Whose an address is: a user's of ours, who is paid in the books; the hot wallet's own; or somebody's outside."""

from dataclasses import dataclass

from engine.bank.account.account import Payee, find_payees
from engine.bank.chain.address import find_owners
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.ids import WalletId
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class OurPayee:
    """A user of ours, with the wallet that the address belongs to."""

    wallet_id: WalletId
    payee: Payee


async def find_our_payee(conn: Connection, address: str) -> OurPayee | None:
    """Who is paid in the books. None: the address is outside.

    Raises Invalid (`invalid_destination`) for an address that the hot wallet has for itself. What is paid to its change
    would not leave it, and nobody would be credited.
    """
    wallet_id = (await find_owners(conn, [address])).get(address)
    if wallet_id is not None:
        payee = (await find_payees(conn, [wallet_id])).get(wallet_id)
        if payee is None:
            raise InvariantBroken(f"{address} belongs to {wallet_id}, which is not there")
        return OurPayee(wallet_id=wallet_id, payee=payee)
    if await _is_of_the_house(conn, address):
        raise Invalid("This address is not for payments.", code="invalid_destination", field="address")
    return None


async def _is_of_the_house(conn: Connection, address: str) -> bool:
    """Whether it is in the pool, or has had a coin or a payout's change."""
    with translated():
        known: bool = await conn.fetchval(
            """SELECT EXISTS (SELECT FROM bank.addresses WHERE address = $1)
                   OR EXISTS (SELECT FROM bank.coins WHERE address = $1)
                   OR EXISTS (SELECT FROM bank.payout_versions WHERE change_address = $1)""",
            address,
        )
    return known
