"""Tells workflows what has changed for them. Best effort: each looks by itself as well, and the janitor after it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from temporalio.client import Client
from temporalio.service import RPCError

from engine.bank.withdrawal import payout, queue
from engine.clients.bitcoind.fault import FOR_OPERATORS
from engine.contracts.batcher import Batcher, batcher_start
from engine.contracts.payout import PayoutRef, payout_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.errors import Refused, Unavailable
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed
from engine.ledger.database import Pool, borrowed

_SIDE_BY_SIDE = 16
_MOST_PAYOUTS = 1000


@asynccontextmanager
async def calling_operators() -> AsyncIterator[None]:
    """What does not pass by itself fails the step, and its workflow calls operators: a repeat would call nobody.

    Raises Refused for it; the workflow tries the step again later.
    """
    try:
        yield
    except Unavailable as away:
        if away.fields.get("reason") not in FOR_OPERATORS:
            raise
        raise Refused(away.detail, code=away.code) from away


async def tell_members(client: Client, workflow_ids: Iterable[str]) -> None:
    """Their payout has moved, or they have left the queue. One whose workflow is gone hears nothing."""
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def tell(workflow_id: str) -> None:
        async with gate:
            with suppress(RPCError):
                await client.get_workflow_handle(workflow_id).signal("payout_moved")

    await asyncio.gather(*(tell(each) for each in workflow_ids))


async def tell_of_step(client: Client, moved: payout.PayoutRow, members: Sequence[str]) -> None:
    """A payout has another status. The members of one that was dissolved have waited already, and are due at once."""
    await tell_members(client, members)
    if moved.status is PayoutStatus.DISSOLVED and members:
        await tell_batcher(client, Batcher(wallet=moved.wallet, speed=moved.speed), due=True)


async def tell_batcher(client: Client, batcher: Batcher, *, due: bool = False) -> None:
    """Somebody waits in its queue again, or coins have come. A batcher that is gone is started.

    `due`: what waits goes now, whatever the window says.
    """
    with suppress(RPCError):
        await start_workflow(client, batcher_start(batcher), signal="flush" if due else "joined")


async def begin_planned(pool: Pool, client: Client, wallet: str) -> None:
    """Payouts of which nothing is signed have a workflow, also when who planned them died before it could say so."""
    async with borrowed(pool) as conn:
        alive = await payout.list_alive(conn, wallet, limit=_MOST_PAYOUTS)
    for row in alive:
        if row.status is PayoutStatus.PLANNED:
            with suppress(RPCError):
                await start_workflow(client, payout_start(PayoutRef(payout_id=row.id, workflow_id=row.workflow_id)))


async def chain_moved(pool: Pool, client: Client, wallet: str) -> None:
    """A block has come or gone: payouts that wait for one look, and batchers that wait for coins."""
    async with borrowed(pool) as conn:
        alive = await payout.list_alive(conn, wallet, limit=_MOST_PAYOUTS)
        waiting = [speed for speed in Speed if (await queue.look(conn, speed)).count]
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def tell(row: payout.PayoutRow) -> None:
        async with gate:
            with suppress(RPCError):
                start = payout_start(PayoutRef(payout_id=row.id, workflow_id=row.workflow_id))
                await start_workflow(client, start, signal="chain_moved")

    await asyncio.gather(*(tell(each) for each in alive))
    await asyncio.gather(*(tell_batcher(client, Batcher(wallet=wallet, speed=speed)) for speed in waiting))


async def coins_came(pool: Pool, client: Client, wallet: str) -> None:
    """Deposits are in the books. Batchers that have left somebody out look again; others have no use for it."""
    async with borrowed(pool) as conn:
        waiting = await queue.list_left_out(conn)
    await asyncio.gather(*(tell_batcher(client, Batcher(wallet=wallet, speed=speed)) for speed in waiting))
