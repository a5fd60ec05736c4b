"""Writes a new payout down: its row, the plan of its first version, and the promise of its coins. One transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.bank.withdrawal import coin, payout, version
from engine.contracts import workflow_ids
from engine.contracts.payout import PayoutRef
from engine.domain.ids import PayoutId, new_id
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import PayoutKind, Speed, VersionKind
from engine.ledger.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A payout that nobody has heard of yet."""

    wallet: str
    kind: PayoutKind
    speed: Speed
    estimate: Mapping[str, Any]
    inputs: Sequence[version.Input]
    rate_sat_kvb: int
    fee_sat: Sat
    weight: int
    change_sat: Sat
    change_vout: int | None
    alone: bool = False
    unlinked: bool = False
    parent_id: PayoutId | None = None


async def add_in_tx(conn: Connection, planned: Planned) -> PayoutRef:
    """Write it. The caller holds the lock of the wallet's coins. Raises Conflict when one of them is promised."""
    payout_id = PayoutId(new_id("payout"))
    ref = PayoutRef(payout_id=payout_id, workflow_id=workflow_ids.payout(payout_id))
    await payout.add_in_tx(
        conn,
        payout.NewPayout(
            id=payout_id,
            wallet=planned.wallet,
            kind=planned.kind,
            speed=planned.speed,
            workflow_id=ref.workflow_id,
            alone=planned.alone,
            unlinked=planned.unlinked,
            parent_id=planned.parent_id,
            estimate=planned.estimate,
        ),
    )
    await version.add_in_tx(
        conn,
        version.NewVersion(
            payout_id=payout_id,
            number=1,
            kind=VersionKind.FIRST,
            rate_sat_kvb=planned.rate_sat_kvb,
            fee_sat=planned.fee_sat,
            weight=planned.weight,
            change_sat=planned.change_sat,
            change_vout=planned.change_vout,
            inputs=planned.inputs,
        ),
    )
    await coin.reserve_in_tx(conn, payout_id, [each.outpoint for each in planned.inputs])
    return ref
