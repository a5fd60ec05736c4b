"""What the books know when a payment is asked for; read for all those that are asked for at the same time.

Whose money it would be, whether its key stands for a request already, and what of its destination is ours: three
statements, whether for one payment or for many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from api.service.destination import Ours, find_ours
from engine.bank.accepted import EarlierRequest, find_earlier_requests
from engine.bank.limits import Payer, find_payers
from engine.domain.destinations import Destination
from engine.domain.ids import AccountId, ApiKeyId, PaymentId, WalletId
from engine.ledger.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A payment that is asked for."""

    payment_id: PaymentId
    account_id: AccountId
    wallet_id: WalletId
    api_key_id: ApiKeyId
    key: str
    destination: Destination | None
    """None where the text names nothing; that is said only after all that comes before it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of it."""

    payer: Payer | None
    """None: the wallet is not the account's."""
    standing: EarlierRequest | None
    """None: the key is free."""
    ours: Ours


async def find_facts(conn: Connection, asked: Sequence[Asked]) -> list[Facts]:
    """In their order."""
    payers = await find_payers(conn, [(each.account_id, each.wallet_id, each.api_key_id) for each in asked])
    standings = await find_earlier_requests(conn, [(each.account_id, each.key, each.payment_id) for each in asked])
    ours = await find_ours(conn, [each.destination for each in asked])
    return [Facts(payer, standing, ours) for payer, standing in zip(payers, standings, strict=True)]
