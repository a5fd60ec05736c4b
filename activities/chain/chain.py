"""The chain pump: follows bitcoind for the hot wallet, and starts the workflows that move deposits on.

    look      what has changed since the tip that is written down          look.py
    record    facts and tip, in one transaction                            recording.py
    wake      each deposit whose next step is due gets its workflow        wake.py

ZMQ wakes the pump, and polling makes it certain: an announcement that is lost costs a second. A deposit is due by its
row alone. So nothing is forgotten when the pump dies between any two of these, and what it tells twice counts once.
"""

import asyncio
from dataclasses import asdict

from temporalio import activity

from activities.chain.fee_report import FeeReporter
from activities.chain.look import Look, Looker
from activities.chain.recording import Recorder
from activities.chain.wake import Waker
from activities.heartbeat import heartbeats
from engine.bank.chain import cursor
from engine.bank.chain.cursor import Chain
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.wakeup import Wakeup
from engine.contracts.chain import ChainPumpActivities, ChainPumpInput
from engine.domain.errors import EngineError, InvariantBroken, Unavailable
from engine.ledger.database import Pool, borrowed

_POLL_S = 1.0
_LEAST_PAUSE_S = 0.1
"""Announcements come many at a time."""
_SECOND_LOOK_S = 0.3
"""After an announcement: the wallet may learn of the transaction later than whoever is subscribed."""
_REST = 4
"""A look that takes long is followed by a pause of so many times its length, at most `_LONGEST_PAUSE_S`."""
_LONGEST_PAUSE_S = 10
_WHOLE_EVERY_S = 10
"""How often the transactions that wait in the mempool are looked up, when no block comes: one may have been evicted."""
_REPORT_EVERY_S = 5


class ChainPump(ChainPumpActivities):
    """Bound to one wallet of one bitcoind."""

    def __init__(
        self,
        bitcoind: Bitcoind,
        pool: Pool,
        *,
        network: str,
        waker: Waker,
        announcements: str | None,
        address_pool: int,
        fees: FeeReporter,
    ) -> None:
        self._bitcoind = bitcoind
        self._pool = pool
        self._looker = Looker(bitcoind, network)
        self._recorder = Recorder(bitcoind, pool)
        self._waker = waker
        self._announcements = announcements
        self._address_pool = address_pool
        self._fees = fees

    @activity.defn
    async def follow_chain(self, pump: ChainPumpInput) -> None:
        async with heartbeats():
            async with borrowed(self._pool) as conn:
                epoch = await cursor.take_epoch(conn, pump.wallet)
            try:
                await self._follow(pump.wallet, epoch)
            except EngineError as error:
                await self._tell_problem(pump.wallet, epoch, error)
                raise

    async def _follow(self, wallet: str, epoch: int) -> None:
        now = asyncio.get_running_loop().time
        whole_at = reported_at = now() - _WHOLE_EVERY_S
        announced = False
        async with Wakeup(self._announcements) as wakeup:
            while True:
                began = now()
                chain, look = await self._look(wallet)
                whole = began - whole_at >= _WHOLE_EVERY_S
                await self._recorder.record(chain, epoch, look, whole=whole)
                whole_at = began if whole else whole_at
                busy = await self._waker.wake(look.tip.height)
                if look.tip != chain.tip:
                    await self._waker.tell_spenders(wallet)
                await self._waker.tell_of_coins(wallet)
                if look.tip != chain.tip or began - reported_at >= _REPORT_EVERY_S:
                    await self._report(wallet, epoch, look)
                    reported_at = began
                await asyncio.sleep(_LEAST_PAUSE_S)
                pause_s = max(_SECOND_LOOK_S if announced else _POLL_S, _REST * (now() - began))
                until, announced = now() + min(_LONGEST_PAUSE_S, pause_s), False
                while not announced and (left_s := until - now()) > 0:
                    announced = await wakeup.wait(min(left_s, _LEAST_PAUSE_S) if busy else left_s)
                    busy = busy and await self._waker.wake(look.tip.height)

    async def _look(self, wallet: str) -> tuple[Chain, Look]:
        async with borrowed(self._pool) as conn:
            chain = await cursor.find_chain(conn, wallet)
            remembered = await cursor.list_blocks(conn, wallet)
        if chain is None:
            raise InvariantBroken(f"the wallet {wallet} is followed before it was adopted")
        return chain, await self._looker.look(chain, remembered)

    async def _report(self, wallet: str, epoch: int, look: Look) -> None:
        info = look.info
        facts = {
            "height": info.tip.height,
            "hash": info.tip.hash,
            "headers": info.headers,
            "network": info.network,
            "version": info.version,
            "subversion": info.subversion,
            "pruned_below": info.pruned_below,
            "warnings": info.warnings,
            "policy": asdict(await self._bitcoind.read_policy()),
            "address_pool": self._address_pool,
            "fees": await self._fees.report(),
        }
        async with borrowed(self._pool) as conn:
            await cursor.report(conn, wallet, epoch, problem=look.problem, facts=facts)

    async def _tell_problem(self, wallet: str, epoch: int, error: EngineError) -> None:
        """For operators. An overtaken pump says nothing, and while Postgres is away nobody can."""
        problem = str(error.fields.get("reason") or error.code)
        try:
            async with borrowed(self._pool) as conn:
                await cursor.report(conn, wallet, epoch, problem=problem, facts=None)
        except Unavailable as unheard:
            activity.logger.warning("%s could not be told of: %s", problem, unheard.detail)
