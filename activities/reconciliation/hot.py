"""Compares the books with the hot wallet: what its looks find (`hot_look.py`), once bitcoind can be believed."""

from temporalio import activity

from activities.heartbeat import heartbeats
from activities.reconciliation import coin
from activities.reconciliation.findings import wallet_moving
from activities.reconciliation.hot_look import HotLooker
from engine.bank import lookback
from engine.bank.chain.cursor import Chain, find_chain
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fault import Reason, unavailable
from engine.clients.bitcoind.health import explain
from engine.contracts.reconciliation import HOT, ChainComparison, ChainReconciliationActivities, PlaceReport
from engine.ledger.database import Pool, borrowed


class ChainReconciliations(ChainReconciliationActivities):
    """Bound to one wallet of one bitcoind."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool, *, pause_s: float = 0.25) -> None:
        self._bitcoind = bitcoind
        self._pool = pool
        self._looker = HotLooker(bitcoind, pool, pause_s=pause_s)

    @activity.defn
    async def compare_chain(self, comparison: ChainComparison) -> PlaceReport:
        """Raises Unavailable when bitcoind is away, behind, or on another chain: nothing can be said then."""
        async with heartbeats():
            async with borrowed(self._pool) as conn:
                chain = await find_chain(conn, comparison.wallet)
                window = await lookback.read_wallet_window(conn, comparison.wallet)
                explained = await lookback.list_explained(conn, HOT)
            if chain is None:
                raise LookupError(comparison.wallet)
            await self._require_same_chain(chain)
            look, is_sure = await self._looker.look_often(comparison.wallet, window.since, explained)
            if look.left_msat and is_sure and window.since_explained < window.since:
                look, is_sure = await self._looker.look_often(comparison.wallet, window.since_explained, [])
        findings = look.findings
        if not is_sure:
            findings = [wallet_moving(comparison.wallet, look.match.account)]
        elif look.left_msat:
            named = {each.subject for each in findings}
            findings = [*findings, coin.unexplained(look.left_msat, look.match.missing, look.books, named)]
        return PlaceReport(place=comparison.wallet, accounts=[look.match.account], findings=findings)

    async def _require_same_chain(self, chain: Chain) -> None:
        info = await self._bitcoind.read_info()
        hindrance = explain(info, network=chain.network, known_work=chain.work)
        if hindrance is not None:
            raise hindrance.error()
        if await self._bitcoind.get_header(chain.anchor.hash) is None:
            raise unavailable(
                Reason.OTHER_NETWORK,
                f"bitcoind is on another chain: it does not know block {chain.anchor.hash} at {chain.anchor.height}.",
            )
