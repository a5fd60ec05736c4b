"""What the queue `onchain` works with: one bitcoind and the hot wallet, once per process."""

from temporalio.client import Client

from activities.chain import adoption, chain, pool, wake
from activities.chain.fee_report import FeeReporter
from activities.reconciliation import hot
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fees import fee_source
from engine.clients.bitcoind.rpc import Rpc
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
        return [
            adoption.Adoption(bitcoind, books, settings.bitcoin_network),
            chain.ChainPump(
                bitcoind,
                books,
                network=settings.bitcoin_network,
                waker=wake.Waker(books, client, settings.deposits_together),
                announcements=settings.bitcoind_zmq,
                address_pool=settings.address_pool,
                fees=FeeReporter(fee_source(self._rpc, settings.fixed_fee_rate), books),
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
