"""The queues of the batchers, for operators, and the word that what waits shall go now. The use cases."""

from datetime import datetime

from pydantic import BaseModel, Field

from api.service import temporal
from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal.market import Market
from api.service.withdrawal.present_market import read_market
from engine.bank.audit import record_in_tx
from engine.contracts.batcher import Batcher, batcher_start
from engine.domain.withdrawal.fee_rate import Bound
from engine.domain.withdrawal.withdrawal import Speed
from engine.ledger.database import transaction


class BatcherOut(BaseModel):
    """What may go with the next payout of a speed."""

    wallet: str
    speed: Speed
    waiting: int = Field(description="Without those that wait for an operator, and those of locked accounts.")
    waiting_sat: int
    oldest_at: datetime | None
    window_s: int = Field(description="How long the first one waits for others.")
    count: int = Field(description="With so many, nobody waits any longer.")
    target_blocks: int
    rate_sat_kvb: int = Field(description="What a payout would pay now, in sat per 1,000 virtual bytes.")
    rate_source: str
    rate_at: datetime | None
    rate_bounded_by: Bound | None
    workflow_id: str


async def list_batchers(resources: Resources, caller: Caller) -> list[BatcherOut]:
    """One for each speed. Raises Unavailable before a hot wallet is adopted."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        market = await read_market(conn)
    return [_shown(market, speed) for speed in Speed]


async def flush_batcher(resources: Resources, caller: Caller, speed: Speed, *, reason: str) -> BatcherOut:
    """Let what waits go now, without the window. Returns once the batcher knows. A repeat changes nothing more.

    What has not the money, the coins or the approval still waits. Raises Unavailable.
    """
    caller.require_role(*MAY["decide about payouts"])
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        market = await read_market(conn)
        shown = _shown(market, speed)
        act = caller.act("batcher.flush", subject=shown.workflow_id, reason=reason, waiting=shown.waiting)
        await record_in_tx(conn, act)
    start = batcher_start(Batcher(wallet=market.wallet, speed=speed))
    await temporal.start(resources.temporal, start, signal="flush")
    return shown


def _shown(market: Market, speed: Speed) -> BatcherOut:
    rules, rate, queue = market.rules.speeds[speed], market.rate(speed), market.queue.get(speed)
    return BatcherOut(
        wallet=market.wallet,
        speed=speed,
        waiting=market.waiting(speed),
        waiting_sat=queue.amount_sat if queue else 0,
        oldest_at=queue.oldest_at if queue else None,
        window_s=rules.window_s,
        count=rules.count,
        target_blocks=rules.target_blocks,
        rate_sat_kvb=rate.rate_sat_kvb,
        rate_source=rate.source,
        rate_at=rate.at,
        rate_bounded_by=rate.bounded_by,
        workflow_id=batcher_start(Batcher(wallet=market.wallet, speed=speed)).id,
    )
