"""A made-up bitcoind behind the interface of the real client: a chain, a mempool, and a wallet that sees both.

It answers as bitcoind was seen to answer. What came in is not listed any more once a block holds a conflicting
transaction. A transaction that was evicted is listed with no confirmation. `conflicts` names only transactions that pay
the wallet, and those in the mempool.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.clients.bitcoind.answer import BranchState, ChainInfo, Listing, Outpoint, Sighting, WalletEntry
from engine.domain.deposit import Block, Sight

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction: it spends these coins and pays these outputs. An output without an address is somebody else's."""

    txid: str
    inputs: frozenset[str]
    outputs: tuple[tuple[str | None, int], ...]

    @property
    def pays_us(self) -> bool:
        return any(address for address, _amount in self.outputs)


@dataclass(frozen=True, slots=True)
class _Mined:
    """A block with its transactions."""

    block: Block
    before: str
    txids: tuple[str, ...]


def new_hash() -> str:
    """Of a transaction or a block."""
    return f"{next(_numbers):064x}"


@dataclass
class FakeBitcoind:
    """One node with one wallet."""

    txs: dict[str, Tx] = field(default_factory=dict)
    mempool: list[str] = field(default_factory=list)
    _blocks: dict[str, _Mined] = field(default_factory=dict)
    _tip: str = ""

    def __post_init__(self) -> None:
        genesis = Block(height=0, hash=new_hash())
        self._blocks[genesis.hash] = _Mined(genesis, "", ())
        self._tip = genesis.hash

    # What the world does

    def broadcast(self, tx: Tx) -> bool:
        """Into the mempool, where it replaces what spends the same coins. False when a block has spent them."""
        self.txs[tx.txid] = tx
        chained = self._chained()
        if tx.txid in chained or any(self._rivals(tx, chained)):
            return False
        for rival in self._rivals(tx, self.mempool):
            self.mempool.remove(rival)
        if tx.txid not in self.mempool:
            self.mempool.append(tx.txid)
        return True

    def evict(self, txid: str) -> None:
        if txid in self.mempool:
            self.mempool.remove(txid)

    def mine(self, txids: Iterable[str] | None = None) -> None:
        """A block with these transactions, or with the whole mempool. What cannot be in it is left out."""
        taken: list[str] = []
        chained = self._chained()
        for txid in list(self.mempool) if txids is None else txids:
            if txid not in chained and not any(self._rivals(self.txs[txid], [*chained, *taken])):
                taken.append(txid)
        block = Block(height=self.tip.height + 1, hash=new_hash())
        self._blocks[block.hash] = _Mined(block, self._tip, tuple(dict.fromkeys(taken)))
        self._go_to(block.hash)

    def leave(self, depth: int) -> None:
        """Hold so many blocks to be invalid. Their transactions return to the mempool."""
        there = self._tip
        for _ in range(min(depth, self.tip.height)):
            there = self._blocks[there].before
        self._go_to(there)

    def go_to(self, block_hash: str) -> None:
        """Follow another branch, with more work or less."""
        self._go_to(block_hash)

    @property
    def tip(self) -> Block:
        return self._blocks[self._tip].block

    def sight(self, txid: str) -> Sighting:
        """The truth about a transaction."""
        for mined in self._chain():
            if txid in mined.txids:
                return Sighting(kind=Sight.MINED, block=mined.block)
        return Sighting(kind=Sight.MEMPOOL if txid in self.mempool else Sight.GONE)

    # What the client asks

    async def read_info(self) -> ChainInfo:
        return ChainInfo(
            network="regtest",
            tip=self.tip,
            headers=self.tip.height,
            work=f"{self.tip.height:064x}",
            initial_download=False,
            pruned_below=None,
            version=290400,
            subversion="/made up/",
            warnings="",
        )

    async def list_since(self, block_hash: str) -> Listing:
        above = self._fork_height(block_hash) if block_hash else -1
        chain = self._chain()
        chained = {txid for mined in chain for txid in mined.txids}
        entries: list[WalletEntry] = []
        for mined in reversed(chain):
            if mined.block.height > above:
                for txid in mined.txids:
                    entries += self._entries(txid, mined.block)
        for txid, tx in self.txs.items():
            if txid not in chained and not any(self._rivals(tx, chained)):
                entries += self._entries(txid, None)
        return Listing(tip=self.tip, entries=tuple(entries))

    async def hashes_at(self, heights: Sequence[int]) -> list[str | None]:
        chain = {mined.block.height: mined.block.hash for mined in self._chain()}
        return [chain.get(height) for height in heights]

    async def branch_of(self, block: Block) -> BranchState:
        if block.hash not in self._blocks:
            return BranchState.UNKNOWN
        there = any(mined.block == block for mined in self._chain())
        return BranchState.ACTIVE if there else BranchState.FORK

    async def look_up(self, txids: Iterable[str]) -> dict[str, Sighting]:
        return {txid: self.sight(txid) for txid in txids}

    async def read_spends(self, txids: Iterable[str]) -> dict[str, list[Outpoint]]:
        assert not list(txids), "this wallet spends nothing"
        return {}

    def _entries(self, txid: str, block: Block | None) -> list[WalletEntry]:
        tx = self.txs[txid]
        rivals = tuple(each for each in self._rivals(tx, self.txs) if self.txs[each].pays_us or each in self.mempool)
        return [
            WalletEntry(
                txid=txid,
                vout=vout,
                address=address,
                amount_sat=amount,
                incoming=True,
                change=False,
                coinbase=False,
                confirmations=0 if block is None else self.tip.height - block.height + 1,
                block=block,
                conflicts=rivals,
            )
            for vout, (address, amount) in enumerate(tx.outputs)
            if address is not None
        ]

    def _rivals(self, tx: Tx, among: Iterable[str]) -> list[str]:
        return [each for each in among if each != tx.txid and self.txs[each].inputs & tx.inputs]

    def _chain(self) -> list[_Mined]:
        """From the tip down to the first block."""
        chain, there = [], self._tip
        while there:
            chain.append(self._blocks[there])
            there = chain[-1].before
        return chain

    def _chained(self) -> set[str]:
        return {txid for mined in self._chain() for txid in mined.txids}

    def _fork_height(self, block_hash: str) -> int:
        active = {mined.block.hash for mined in self._chain()}
        while block_hash not in active:
            block_hash = self._blocks[block_hash].before
        return self._blocks[block_hash].block.height

    def _go_to(self, block_hash: str) -> None:
        left = [txid for mined in reversed(self._chain()) for txid in mined.txids]
        self._tip = block_hash
        chained = self._chained()
        waiting = [*(txid for txid in left if txid not in chained), *self.mempool]
        self.mempool = []
        for txid in dict.fromkeys(waiting):
            tx = self.txs[txid]
            if txid not in chained and not any(self._rivals(tx, [*chained, *self.mempool])):
                self.mempool.append(txid)
