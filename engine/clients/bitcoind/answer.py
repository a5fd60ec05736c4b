"""What bitcoind answers, as values: amounts in whole satoshi, blocks with height and hash."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from engine.clients.bitcoind.fault import UNFORESEEN
from engine.domain.deposit import Block, Sight
from engine.domain.errors import InvariantBroken

Outpoint = tuple[str, int]
"""Txid and number of the output."""

_PLACES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainInfo:
    """The node and how far it is."""

    network: str
    """mainnet, testnet, signet or regtest; another chain has bitcoind's own name for it."""
    tip: Block
    headers: int
    """The height of the best header. Above the tip, the node has blocks to load."""
    work: str
    """The work of the active chain: 64 hexadecimal digits, which compare as text."""
    initial_download: bool
    pruned_below: int | None
    """The node has no blocks below this height. None: it has them all."""
    version: int
    """290403 is 29.4.3."""
    subversion: str
    warnings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolPolicy:
    """What the node's mempool takes. Fee rates are satoshi per 1,000 virtual bytes."""

    min_relay_sat_per_kvb: int
    mempool_min_sat_per_kvb: int
    """Above the relay minimum while the mempool is full."""
    incremental_sat_per_kvb: int
    full_rbf: bool | None
    """None: this version does not tell, because it always replaces."""
    transactions: int
    bytes: int
    """Virtual bytes of all transactions."""
    max_bytes: int
    """Memory, which is more than virtual bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletEntry:
    """One output that came to the wallet, or one that a transaction of the wallet has paid."""

    txid: str
    vout: int
    address: str | None
    amount_sat: int
    incoming: bool
    change: bool
    """The output is on a change address of the wallet, whoever has paid it."""
    coinbase: bool
    confirmations: int
    """0: in no block. Negative: a conflicting transaction is in a block, this deep. bitcoind then lists the transaction
    only if it is the wallet's own.
    """
    block: Block | None
    conflicts: tuple[str, ...]
    """Transactions of the wallet or of the mempool that spend the same coins. Foreign ones in blocks are not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the wallet lists after a block, and the block up to which it has looked."""

    tip: Block
    entries: tuple[WalletEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Where a transaction is, by the wallet and the mempool."""

    kind: Sight
    block: Block | None = None
    """The block of a mined one."""
    known: bool = True
    """Whether the wallet has the transaction. A wallet forgets none. So it has never seen this one, or it is not the
    wallet that it was, such as an older copy: `GONE` then proves nothing.
    """


class BranchState(StrEnum):
    """How a block stands to the node's active chain."""

    ACTIVE = "active"
    FORK = "fork"
    """The node follows another chain with more work, or holds the block to be invalid."""
    UNKNOWN = "unknown"
    """The node has not got that far: it does not know the block, or has not yet checked a branch with more work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """An unspent output of the wallet."""

    txid: str
    vout: int
    amount_sat: int
    address: str | None
    confirmations: int
    safe: bool
    """Confirmed, or unconfirmed change of the wallet's own transactions."""
    locked: bool = False
    """Reserved by `lockunspent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinCut:
    """All unspent outputs of the wallet at one tip, without coinbase outputs that are not mature."""

    tip: Block
    coins: tuple[Coin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAddress:
    """An address of the wallet, and its index in the descriptor of its type."""

    address: str
    hd_index: int


def satoshi(amount: object) -> int:
    """Whole satoshi of an amount in bitcoin, exact. Raises InvariantBroken for a fraction or what is no number."""
    if isinstance(amount, (int, Decimal)) and not isinstance(amount, bool):
        shifted = Decimal(amount).scaleb(_PLACES)
        if shifted.is_finite() and shifted == shifted.to_integral_value():
            return int(shifted)
    raise InvariantBroken("bitcoind has told an amount that is not whole satoshi", code=UNFORESEEN)
