"""The chart of accounts: the codes of the bank's own accounts, and their ids.

Ids never change, so a process asks once and remembers them. Users' accounts are not remembered: wallets carry the id.
"""

from dataclasses import dataclass
from typing import Final

from engine.domain.ids import NodeName, WalletId
from engine.ledger.account import get_account_id, get_account_ids
from engine.ledger.database import Connection

OUTBOX: Final = "liab:outbox"
SUSPENSE_IN: Final = "suspense:in"
CAPITAL: Final = "equity:capital"
LIGHTNING_FEES: Final = "income:ln-fee"
TRANSFER_FEES: Final = "income:transfer-fee"
ROUTING_COST: Final = "exp:ln-routing"
HOT: Final = "asset:hot"
DEPOSITS_PENDING: Final = "liab:deposits-pending"
DEPOSIT_FEES: Final = "income:deposit-fee"
LOSS: Final = "exp:loss"
PAYOUT_QUEUE: Final = "liab:payout-queue"
WITHDRAW_FEES: Final = "income:withdraw-fee"
MINER_WITHDRAW: Final = "exp:miner:withdraw"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartIds:
    """The ids of the bank's own accounts that postings need."""

    outbox: int
    suspense_in: int
    capital: int
    lightning_fees: int
    transfer_fees: int
    routing_cost: int
    hot: int
    deposits_pending: int
    deposit_fees: int
    loss: int
    payout_queue: int
    withdraw_fees: int
    miner_withdraw: int


_CODES: Final = {
    "outbox": OUTBOX,
    "suspense_in": SUSPENSE_IN,
    "capital": CAPITAL,
    "lightning_fees": LIGHTNING_FEES,
    "transfer_fees": TRANSFER_FEES,
    "routing_cost": ROUTING_COST,
    "hot": HOT,
    "deposits_pending": DEPOSITS_PENDING,
    "deposit_fees": DEPOSIT_FEES,
    "loss": LOSS,
    "payout_queue": PAYOUT_QUEUE,
    "withdraw_fees": WITHDRAW_FEES,
    "miner_withdraw": MINER_WITHDRAW,
}


class Chart:
    """Remembers the ids. One per pool."""

    def __init__(self) -> None:
        self._ids: ChartIds | None = None
        self._channels: dict[NodeName, int] = {}

    async def load(self, conn: Connection) -> ChartIds:
        """The ids of the bank's own accounts. Raises NotFound when one is missing."""
        if self._ids is None:
            by_code = await get_account_ids(conn, list(_CODES.values()))
            self._ids = ChartIds(**{name: by_code[code] for name, code in _CODES.items()})
        return self._ids

    async def load_channels(self, conn: Connection, node: NodeName) -> int:
        """The id of the account of this node's channels. Raises NotFound before the node is adopted."""
        if node not in self._channels:
            self._channels[node] = await get_account_id(conn, channels(node))
        return self._channels[node]
