"""Adopts the hot wallet: what it holds becomes the bank's capital, once, and the chain is followed from that tip on."""

from temporalio import activity

from activities.heartbeat import heartbeats
from engine.bank.chain import cursor
from engine.bank.chain.coin import SeenCoin, record_opening_in_tx
from engine.clients.bitcoind.answer import Coin, CoinCut
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.health import explain
from engine.contracts.chain import AdoptionActivities, ChainPumpInput
from engine.domain.deposit import Block
from engine.domain.errors import Unavailable
from engine.domain.money import Sat, sat_to_msat
from engine.ledger.chart import Chart
from engine.ledger.database import Pool, borrowed, transaction
from engine.ledger.postings.wallet import adopted
from engine.ledger.store import post_new_in_tx

_REMEMBERED_BEFORE = 100
"""So many blocks below the tip are remembered from the beginning: a reorganisation may reach below the adoption."""


class Adoption(AdoptionActivities):
    """Bound to one bitcoind. The wallet is named with each call."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool, network: str) -> None:
        self._bitcoind = bitcoind
        self._pool = pool
        self._network = network
        self._ids = Chart()

    @activity.defn
    async def adopt_wallet(self, pump: ChainPumpInput) -> bool:
        async with heartbeats():
            return await self.adopt(pump.wallet)

    async def adopt(self, wallet: str) -> bool:
        """Book the opening. False when it was done before. Raises Unavailable while the chain moves."""
        async with borrowed(self._pool) as conn:
            if await cursor.find_chain(conn, wallet) is not None:
                return False
        info = await self._bitcoind.read_info()
        hindrance = explain(info, network=self._network)
        if hindrance is not None and not info.initial_download:
            raise hindrance.error()
        cut = await self._bitcoind.read_coins()
        lowest = max(1, cut.tip.height - _REMEMBERED_BEFORE)
        hashes = await self._bitcoind.hashes_at(range(lowest, cut.tip.height + 1))
        if info.tip.hash != cut.tip.hash or not hashes or hashes[-1] != cut.tip.hash:
            raise Unavailable("the chain has moved while the wallet was read")
        blocks = [Block(height=height, hash=found) for height, found in enumerate(hashes, lowest) if found is not None]
        return await self._write(wallet, info.work, cut, blocks)

    async def _write(self, wallet: str, work: str, cut: CoinCut, blocks: list[Block]) -> bool:
        coins = [coin for coin in cut.coins if coin.confirmations > 0]
        async with transaction(self._pool) as conn:
            if not await cursor.adopt_in_tx(conn, wallet, network=self._network, blocks=blocks, work=work):
                return False
            await record_opening_in_tx(conn, [_opening(cut, coin) for coin in coins])
            total_sat = Sat(sum(coin.amount_sat for coin in coins))
            posting = adopted(await self._ids.load(conn), wallet, sat_to_msat(total_sat))
            if posting is not None:
                await post_new_in_tx(conn, posting)
        return True


def _opening(cut: CoinCut, coin: Coin) -> SeenCoin:
    return SeenCoin(
        txid=coin.txid,
        vout=coin.vout,
        amount_sat=coin.amount_sat,
        address=coin.address,
        change=False,
        block_height=cut.tip.height - coin.confirmations + 1,
    )
