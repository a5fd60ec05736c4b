"""Joins small coins of the wallet by rule, when nobody waits for a payout: one transaction at a time, its fee ours.

It is a payout without members. Its fee is worth it only while it is low, so no rule bumps it; an operator can.
"""

import asyncio
from dataclasses import asdict

from activities.payout.group import Round
from activities.payout.new import Planned, add_in_tx
from activities.payout.replace import MOST_COINS, candidates, change_script
from engine.bank.chain.coin import read_origins
from engine.bank.chain.provenance import UNKNOWN
from engine.bank.withdrawal import coin, payout, queue, version
from engine.contracts.payout import PayoutRef
from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.withdrawal.consolidation import is_due, plan_consolidation
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.withdrawal import PayoutKind, Speed
from engine.ledger.database import Connection


def may_join(speed: Speed, rules: WithdrawalRules) -> bool:
    """Whether the batcher of this speed joins coins, and the rule is on."""
    return speed is Speed.SLOW and rules.consolidation.enabled


async def consolidate_in_tx(conn: Connection, this: Round) -> PayoutRef | None:
    """Store the plan of a consolidation if one is due, its coins reserved. None: not now.

    A repeat finds it under way, and plans none.
    """
    wallet, rules = this.batcher.wallet, this.rules
    await coin.lock_coins_in_tx(conn, wallet)
    if await payout.find_consolidation(conn, wallet) is not None:
        return None
    if any([(await queue.look(conn, speed)).count for speed in Speed]):
        return None
    free = candidates(
        await coin.list_free(conn, wallet, min_depth=rules.coins.min_depth, limit=MOST_COINS), this.frozen
    )
    if not is_due(this.rate, len(free), rules):
        return None
    origins = {
        Outpoint(txid=Txid(txid), vout=vout): accounts
        for (txid, vout), accounts in (
            await read_origins(conn, [(each.outpoint.txid, each.outpoint.vout) for each in free])
        ).items()
    }
    choice = await asyncio.to_thread(
        plan_consolidation,
        free,
        {each for each, accounts in origins.items() if accounts},
        this.rate.rate_sat_kvb,
        rules,
        change_script(this.address_type),
        unknown={each.outpoint for each in free if UNKNOWN in origins.get(each.outpoint, {UNKNOWN})},
    )
    if choice is None:
        return None
    planned = Planned(
        wallet=wallet,
        kind=PayoutKind.CONSOLIDATION,
        speed=this.batcher.speed,
        estimate={**asdict(this.rate), "at": this.rate.at and this.rate.at.isoformat()},
        inputs=[version.Input(outpoint=each.outpoint, amount_sat=each.amount_sat) for each in choice.coins],
        rate_sat_kvb=this.rate.rate_sat_kvb,
        fee_sat=choice.fee_sat,
        weight=choice.weight,
        change_sat=choice.change_sat,
        change_vout=0,
    )
    return await add_in_tx(conn, planned)
