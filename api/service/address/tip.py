"""The address on a user's public page: one at a time, and another one once it was paid."""

from dataclasses import dataclass

from api.service.invoice.payee import Payee
from api.service.resources import Resources
from engine.bank.chain.address import NONE_READY, Wanted, find_current, give_in_tx
from engine.bank.chain.deposit_rules import read_deposit_rules
from engine.domain.errors import Unavailable
from engine.domain.money import Sat
from engine.ledger.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class TipAddress:
    """Where anybody may pay a user on chain."""

    address: str
    minimum_sat: Sat
    """Smaller deposits are not credited."""


async def find_tip_address(resources: Resources, payee: Payee) -> TipAddress | None:
    """The user's address for tips. None when the pool is empty: the user is then paid over Lightning alone."""
    async with resources.reading() as conn:
        minimum_sat = (await read_deposit_rules(conn)).minimum_sat
        current = await find_current(conn, payee.wallet_id, "tip")
    if current is None:
        current = await _give(resources, payee)
    return None if current is None else TipAddress(address=current, minimum_sat=minimum_sat)


async def _give(resources: Resources, payee: Payee) -> str | None:
    wanted = Wanted(account_id=payee.account_id, wallet_id=payee.wallet_id, purpose="tip", most_unpaid=1)
    try:
        async with transaction(resources.pool) as conn:
            row = await give_in_tx(conn, wanted)
    except Unavailable as empty:
        if empty.code != NONE_READY:
            raise
        return None
    return None if row is None else str(row["address"])
