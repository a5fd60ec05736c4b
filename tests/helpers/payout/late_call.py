"""A call of an activity that is held before one of its statements or RPC calls, while another call does the same.

    async with opened_late_desk(dsn, chain) as late:
        await late.begin(3, late.desk.step(payout))  # until the third thing that it asks of PostgreSQL or bitcoind
        ...                                          # meanwhile others go on
        await late.go_on()

Temporal gives a step to another worker when the first one seems to be dead. It may only be slow.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from engine.clients.bitcoind.connection import Call
from engine.clients.bitcoind.rpc import Rpc, RpcFault
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.schedule import Actor, Seat, open_seat

_EVERY_STATEMENT = {"": "a statement"}


class LateActor(Actor):
    """Stops once, before the step of this number."""

    def __init__(self, at: int) -> None:
        super().__init__("late", asyncio.Event())
        self.at, self.steps, self.where = at, 0, ""
        self.stopped, self.may_go = asyncio.Event(), asyncio.Event()

    async def pause(self, step: str) -> None:
        """Take the step, or wait before it."""
        self.steps += 1
        if self.steps == self.at:
            self.where = step
            self.stopped.set()
            await self.may_go.wait()


class _LateRpc(Rpc):
    """Tells the actor each call before it is sent."""

    seat: Seat

    async def call(
        self, method: str, *params: object, wallet: str | None = None, timeout_s: float = 30, repeat: bool = True
    ) -> Any:
        if self.seat.actor is not None:
            await self.seat.actor.pause(method)
        return await super().call(method, *params, wallet=wallet, timeout_s=timeout_s, repeat=repeat)

    async def batch(
        self, calls: Sequence[Call], *, wallet: str | None = None, timeout_s: float = 60, repeat: bool = True
    ) -> list[Any | RpcFault]:
        if self.seat.actor is not None and calls:
            await self.seat.actor.pause(calls[0][0])
        return await super().batch(calls, wallet=wallet, timeout_s=timeout_s, repeat=repeat)


class LateDesk:
    """A process of its own: connections to the books and to bitcoind that nobody shares."""

    def __init__(self, seat: Seat, desk: PayoutDesk) -> None:
        self._seat, self.desk = seat, desk
        self._actor = LateActor(0)
        self._call: asyncio.Task[Any] | None = None

    @property
    def where(self) -> str:
        """Before what it has stopped: for people."""
        return f"step {self._actor.at}, {self._actor.where}"

    async def begin(self, at: int, call: Coroutine[Any, Any, Any]) -> bool:
        """Run the call until it stops there; False: it has ended before."""
        self._actor = self._seat.actor = LateActor(at)
        self._call = asyncio.create_task(call)
        stopping = asyncio.create_task(self._actor.stopped.wait())
        await asyncio.wait([self._call, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self._actor.stopped.is_set():
            self._call.result()
        return self._actor.stopped.is_set()

    async def go_on(self) -> BaseException | None:
        """Let it end. What it has raised."""
        assert self._call is not None
        self._actor.may_go.set()
        await asyncio.wait([self._call])
        self._seat.actor = None
        return self._call.exception()

    async def die(self) -> None:
        """End it where it stands, as the end of its process does: what is not committed is rolled back."""
        if self._call is not None:
            self._call.cancel()
            await asyncio.wait([self._call])
        self._seat.actor = None


@asynccontextmanager
async def opened_late_desk(dsn: str, chain: Chain) -> AsyncIterator[LateDesk]:
    """Beside a bank whose wallet is adopted already."""
    seat = await open_seat(dsn, _EVERY_STATEMENT)
    rpc = _LateRpc(chain.url, chain.auth_file)
    rpc.seat = seat
    late = LateDesk(seat, PayoutDesk(Depositors(seat.pool, chain, rpc), rpc))
    try:
        yield late
    finally:
        await late.die()
        await rpc.close()
        await seat.pool.close()
