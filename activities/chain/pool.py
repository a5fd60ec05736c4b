"""The pool of addresses: filled ahead, so that the API can give one without bitcoind, and watched for ever.

    check    the wallet watches every address of the books, and has read every block that may pay one; again and again
    fill     make addresses until as many as the settings ask for are ready

A wallet that was restored from an older copy, or from its descriptor alone, does not know all addresses that were given
since. It is told to watch further ahead and to read the blocks again. What it must still read stands in
`bank.chains.scan_from`, so the work is taken up again whatever dies. Then the pump looks at these blocks again.
"""

import asyncio
import logging
from collections.abc import Sequence

from temporalio import activity

from activities.heartbeat import heartbeats
from engine.bank.chain import address_pool
from engine.bank.chain.address_pool import MadeAddress
from engine.clients.bitcoind.chain import Bitcoind
from engine.contracts.chain import AddressPoolActivities, ChainPumpInput
from engine.domain.errors import InvariantBroken, Unavailable
from engine.ledger.database import Pool, borrowed

log = logging.getLogger(__name__)

WALLET_REPLACED = "wallet_replaced"
_PIECE, _LARGEST_PIECE = 25, 1000
_PAUSE_S, _BREATH_S = 1.0, 0.2
_CHECK_EVERY_S = 10
"""The wallet may have been replaced by an older copy while the pool is full, and nobody else would notice."""
_PAGE = 1000
_AHEAD = 1000
"""The wallet watches so many addresses beyond the last one of the books."""
_REACH = 144
"""A block that pays an address may lie below the tip at which the address was made, after a reorganisation."""


class PoolKeeper(AddressPoolActivities):
    """Bound to one wallet of one bitcoind. Two of them do no harm."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool, *, wallet: str, size: int, address_type: str) -> None:
        self._bitcoind = bitcoind
        self._pool = pool
        self._wallet = wallet
        self._size = size
        self._address_type = address_type

    @activity.defn
    async def tend_pool(self, pump: ChainPumpInput) -> None:
        """As `tend`."""
        async with heartbeats():
            await self.tend()

    async def tend(self) -> None:
        """Run for ever. While bitcoind or PostgreSQL is away, try again each second.

        Raises InvariantBroken (`wallet_replaced`) when the wallet has other keys than ours.
        """
        while True:
            try:
                await self.check()
                await self._tell(None)
                await self._fill()
            except Unavailable as away:
                log.warning("the pool of addresses waits: %s", away)
                await asyncio.sleep(_PAUSE_S)
            except InvariantBroken as broken:
                await self._tell(str(broken.fields.get("reason") or broken.code))
                raise

    async def _tell(self, problem: str | None) -> None:
        async with borrowed(self._pool) as conn:
            await address_pool.tell_problem(conn, self._wallet, problem)

    async def check(self) -> None:
        """Make sure that the wallet watches every address of the books, and has seen what was paid to them.

        A repeat asks for two addresses. After a restore it may take hours. Raises as `tend`, and Unavailable.
        """
        async with borrowed(self._pool) as conn:
            last = await address_pool.list_last(conn)
        if not await self._knows_all(last):
            await self._widen(last)
        await self._require_history()
        async with borrowed(self._pool) as conn:
            height = await address_pool.find_scan(conn, self._wallet)
        if height is not None:
            log.warning("the wallet %s reads the blocks from %d on again", self._wallet, height)
            await self._bitcoind.rescan(height)
            async with borrowed(self._pool) as conn:
                await address_pool.note_scan(conn, self._wallet, height)

    async def _fill(self) -> None:
        """Run until it is time for a check. Raises Unavailable when bitcoind or PostgreSQL fails."""
        now = asyncio.get_running_loop().time
        piece, until = _PIECE, now() + _CHECK_EVERY_S
        while now() < until:
            async with borrowed(self._pool) as conn:
                ready = await address_pool.count_ready(conn, self._size)
            if ready >= self._size:
                await asyncio.sleep(_PAUSE_S)
                continue
            made = await self._bitcoind.make_addresses(piece, self._address_type)
            async with borrowed(self._pool) as conn:
                new = await address_pool.add_made(conn, self._wallet, {each.address: each.hd_index for each in made})
            # A wallet that was restored from an older copy first makes addresses again that the books have already.
            piece = _PIECE if new else min(2 * piece, _LARGEST_PIECE)
            if new and 2 * ready > self._size:
                await asyncio.sleep(_BREATH_S)

    async def _widen(self, last: Sequence[MadeAddress]) -> None:
        """Have the wallet watch all addresses, after it is written down from where it must read the blocks again."""
        height = max(0, await self._lowest_unknown() - _REACH)
        async with borrowed(self._pool) as conn:
            await address_pool.ask_for_scan(conn, self._wallet, height)
        await self._bitcoind.widen(max(each.hd_index for each in last) + _AHEAD)
        if not await self._knows_all(last):
            raise InvariantBroken(
                f"the wallet {self._wallet} has other keys than those that our addresses were made from",
                code=WALLET_REPLACED,
                reason=WALLET_REPLACED,
            )

    async def _lowest_unknown(self) -> int:
        """The tip before which nothing was paid to an address that the wallet does not know."""
        heights: list[int] = []
        below: str | None = None
        while True:
            async with borrowed(self._pool) as conn:
                page = await address_pool.list_made(conn, below=below, limit=_PAGE)
            if not page:
                return min(heights, default=0)
            known = await self._bitcoind.knows([each.address for each in page])
            heights += [each.made_height for each in page if not known[each.address]]
            below = page[-1].address

    async def _require_history(self) -> None:
        """The wallet must have the oldest transaction of the books, else it has not read all blocks since then.

        A wallet that was made from its descriptor without the right time stamp knows its keys and nothing else.
        """
        async with borrowed(self._pool) as conn:
            oldest = await address_pool.find_oldest_coin(conn)
        if oldest is None:
            return
        txid, height = oldest
        if not (await self._bitcoind.look_up([txid]))[txid].known:
            async with borrowed(self._pool) as conn:
                await address_pool.ask_for_scan(conn, self._wallet, height)

    async def _knows_all(self, made: Sequence[MadeAddress]) -> bool:
        return all((await self._bitcoind.knows([each.address for each in made])).values())
