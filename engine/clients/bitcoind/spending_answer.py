"""What bitcoind tells of the bank's own transactions, as values. Amounts are whole satoshi."""

from dataclasses import dataclass

from engine.domain.deposit import Block
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.transaction import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolEntry:
    """A transaction in the mempool, with those that it stands on and those that stand on it. Both count itself."""

    height: int
    """The tip when it came into the mempool."""
    fee_sat: Sat
    vbytes: int
    ancestors: int
    ancestors_vbytes: int
    ancestors_fee_sat: Sat
    descendants: int
    descendants_vbytes: int
    descendants_fee_sat: Sat
    """What a replacement must pay more than, because all of them leave with it (BIP 125, rule 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletTransaction:
    """A transaction that the wallet knows, because it pays or spends a coin of it."""

    txid: Txid
    tx: Tx
    raw: str
    """In hex."""
    own: bool
    """Whether it spends coins of the wallet."""
    confirmations: int
    """0: in no block, be it in the mempool or not. Negative: a conflicting transaction lies so deep in the chain."""
    block: Block | None
    conflicts: tuple[Txid, ...]
    """Transactions of the wallet or of the mempool that spend the same coins, such as its own replacements."""
