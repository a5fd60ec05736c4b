"""The chart of accounts: the codes of the bank's own accounts, and their ids, remembered once found.

Ids never change, so a process asks once per code. Users' accounts are not remembered here: their wallets carry the id.
"""

from typing import Final

from engine.domain.ids import NodeName, WalletId
from engine.ledger.accounts import get_account_id
from engine.ledger.database import Connection

OUTBOX: Final = "liab:outbox"
SUSPENSE_IN: Final = "suspense:in"
CAPITAL: Final = "equity:capital"
LIGHTNING_FEES: Final = "income:ln-fee"
TRANSFER_FEES: Final = "income:transfer-fee"
ROUTING_COST: Final = "exp:ln-routing"


def channels(node: NodeName) -> str:
    """What the node holds in its channels, our outgoing HTLCs included."""
    return f"asset:lnd:{node}:channels"


def commit_escrow(node: NodeName) -> str:
    """Commitment fees and anchors of channels that we opened."""
    return f"asset:lnd:{node}:commit-escrow"


def onchain(node: NodeName) -> str:
    """The node's own on-chain wallet."""
    return f"asset:lnd:{node}:onchain"


def user(wallet_id: WalletId) -> str:
    """What we owe the owner of this wallet; never below zero."""
    return f"liab:user:{wallet_id}"


class Chart:
    """Ids by code. One per pool."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    async def get_id(self, conn: Connection, code: str) -> int:
        """Raises NotFound for a code that is not in the books."""
        if code not in self._ids:
            self._ids[code] = await get_account_id(conn, code)
        return self._ids[code]
