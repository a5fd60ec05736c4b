"""What the queue `onchain` works with: one bitcoind and the hot wallet, once per process."""

from temporalio.client import Client

from activities import batcher
from activities.chain import adoption, chain, pool, wake
from activities.payout import payout
from activities.reconciliation import hot
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fees import fee_source
from engine.clients.bitcoind.hot import HotWallet
from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.signer import WalletSigner
from engine.clients.bitcoind.spending import Spending
from engine.ledger.database import Pool
from engine.settings import WorkerSettings


class Onchain:
    """To be closed. Nothing is connected before it is used."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._rpc = Rpc(settings.bitcoind_url.get_secret_value(), settings.bitcoind_auth_file)

    async def close(self) -> None:
        """End all calls of bitcoind."""
        await self._rpc.close()

    def implementations(self, client: Client, books: Pool) -> list[object]:
        """The objects whose activities call bitcoind."""
        settings, bitcoind = self._settings, Bitcoind(self._rpc, self._settings.hot_wallet)
        wallet = HotWallet(
            name=settings.hot_wallet,
            chain=bitcoind,
            spending=Spending(self._rpc, settings.hot_wallet, change_type=settings.address_type),
            signer=WalletSigner(self._rpc, settings.hot_wallet),
            fees=fee_source(self._rpc, settings.fixed_fee_rate),
            address_type=settings.address_type,
        )
        return [
            batcher.Batchers(books, client, wallet),
            payout.Payouts(books, client, wallet),
            adoption.Adoption(bitcoind, books, settings.bitcoin_network),
            chain.ChainPump(
                bitcoind,
                books,
                network=settings.bitcoin_network,
                waker=wake.Waker(books, client, settings.deposits_together),
                announcements=settings.bitcoind_zmq,
                address_pool=settings.address_pool,
            ),
            pool.PoolKeeper(
                bitcoind,
                books,
                wallet=settings.hot_wallet,
                size=settings.address_pool,
                address_type=settings.address_type,
            ),
            hot.ChainReconciliations(bitcoind, books),
        ]
