"""Reads what bitcoind shows of the wallet since the pump last looked. Writes nothing.

The chain that the bank has followed is a list of block hashes. The youngest of them that is still on the node's chain
is the fork: what the node says after it is new, and what the bank has written after it may be wrong.

    fork = tip, nothing after it      nothing new, perhaps new transactions in the mempool
    fork = tip, blocks after it       new blocks
    fork below the tip                a reorganisation, if the node has really left our blocks; otherwise it is behind
    no fork at all                    another chain: refused, until an operator has looked

A node that was restored from an older copy is behind: it does not know our blocks yet. Only a node that has them and
has left them, or has more work than we have seen, takes money back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bank.chain.cursor import Chain
from engine.clients.bitcoind.answer import BranchState, ChainInfo, WalletEntry
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fault import Reason, unavailable
from engine.clients.bitcoind.health import explain
from engine.domain.deposit import Block
from engine.domain.errors import InvariantBroken

OTHER_CHAIN = "other_chain"
_TRIES = 5
_AT_ONCE = 500
_HARMLESS = (Reason.BEHIND,)
"""A node that has not loaded all blocks tells the truth about those that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the node shows, at one tip."""

    info: ChainInfo
    fork: Block
    blocks: tuple[Block, ...]
    """The chain after the fork."""
    entries: tuple[WalletEntry, ...]
    """The wallet's outputs in these blocks and in no block; also in older blocks, when an operator asked for them."""
    problem: str | None
    """What is to be told of a node that can be followed all the same."""

    @property
    def tip(self) -> Block:
        """The last block."""
        return self.blocks[-1] if self.blocks else self.fork


class Looker:
    """Bound to one wallet of one bitcoind."""

    def __init__(self, bitcoind: Bitcoind, network: str) -> None:
        self._bitcoind = bitcoind
        self._network = network

    async def look(self, chain: Chain, remembered: Sequence[Block]) -> Look:
        """Read, until tip and fork are the same before and after.

        Raises Unavailable while bitcoind is away or behind, and InvariantBroken (`other_chain`) for a node without our
        blocks.
        """
        for _ in range(_TRIES):
            info = await self._bitcoind.read_info()
            problem = self._require_fit(info)
            fork = await self._find_fork(chain, remembered, info)
            listing = await self._bitcoind.list_since(await self._since(chain, fork))
            blocks = await self._read_blocks(fork, listing.tip)
            if blocks is not None and info.tip == listing.tip:
                return Look(info=info, fork=fork, blocks=blocks, entries=listing.entries, problem=problem)
        raise unavailable(Reason.BUSY, "bitcoind had another tip each time while its wallet was read.")

    def _require_fit(self, info: ChainInfo) -> str | None:
        hindrance = explain(info, network=self._network)
        if hindrance is not None and hindrance.reason not in _HARMLESS:
            raise hindrance.error()
        return None if hindrance is None else hindrance.reason.value

    async def _find_fork(self, chain: Chain, remembered: Sequence[Block], info: ChainInfo) -> Block:
        """The youngest remembered block on the node's chain: looked for in ever larger steps."""
        at, step = 0, 1
        while at < len(remembered):
            page = remembered[at : at + step]
            hashes = await self._bitcoind.hashes_at([block.height for block in page])
            found = next((block for block, there in zip(page, hashes, strict=True) if block.hash == there), None)
            if found is not None:
                if found.hash != chain.tip.hash:
                    await self._require_left(chain, info)
                return found
            at, step = at + step, min(10 * step, _AT_ONCE)
        raise InvariantBroken(
            f"bitcoind is on another chain: it has none of the blocks that {chain.wallet} was followed through",
            code=OTHER_CHAIN,
            reason=OTHER_CHAIN,
        )

    async def _require_left(self, chain: Chain, info: ChainInfo) -> None:
        """Raises Unavailable (`behind`) unless the node has left our tip for good."""
        branch = await self._bitcoind.branch_of(chain.tip)
        if branch is BranchState.UNKNOWN and info.work <= chain.work:
            raise unavailable(
                Reason.BEHIND, f"bitcoind is at block {info.tip.height} and has not reached {chain.tip.height} again."
            )
        if branch is BranchState.ACTIVE:
            raise unavailable(Reason.BUSY, "bitcoind has changed its chain while it was read.")

    async def _since(self, chain: Chain, fork: Block) -> str:
        """The block after which the wallet is listed: the fork, or an older one that an operator has named."""
        height = chain.rescan_from
        if height is None or height > fork.height:
            return fork.hash
        if height == 0:
            return ""
        (found,) = await self._bitcoind.hashes_at([height - 1])
        return found or fork.hash

    async def _read_blocks(self, fork: Block, tip: Block) -> tuple[Block, ...] | None:
        """The chain after the fork, up to the tip. None when it is not one chain: it has changed meanwhile."""
        heights = range(fork.height, tip.height + 1)
        hashes: list[str | None] = []
        for start in range(0, len(heights), _AT_ONCE):
            hashes += await self._bitcoind.hashes_at(heights[start : start + _AT_ONCE])
        if not hashes or hashes[0] != fork.hash or hashes[-1] != tip.hash:
            return None
        return tuple(
            Block(height=height, hash=found)
            for height, found in zip(heights[1:], hashes[1:], strict=True)
            if found is not None
        )
