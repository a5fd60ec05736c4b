"""Payouts for operators: a page of them, and the whole story of one. The use cases. They read PostgreSQL only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.service.auth import Caller
from api.service.payout.shape import PayoutMemberOut, PayoutOut, PayoutStoryOut, PayoutVersionOut
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut
from engine.domain.deposit import depth
from engine.domain.errors import no_such
from engine.domain.money import Msat, msat_to_sat_floor
from engine.domain.page import START, Position, Slice
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed
from engine.views.withdrawal.decision import list_decisions_about
from engine.views.withdrawal.payout import PAYOUTS, find_payout_story


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutFilter:
    """Which payouts; all conditions count together."""

    status: PayoutStatus | None = None
    speed: Speed | None = None
    waits_for_operator: bool = False


async def list_payouts(
    resources: Resources, caller: Caller, wanted: PayoutFilter, *, after: Position = START, limit: int
) -> Slice[PayoutOut]:
    """One page, newest first."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        found = await PAYOUTS.read(conn, after, limit, wanted.status, wanted.speed, wanted.waits_for_operator)
    return found.map(lambda row: PayoutOut(**_shown(row)))


async def show_payout(resources: Resources, caller: Caller, payout_id: str) -> PayoutStoryOut:
    """The story of one. Raises NotFound."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        story = await find_payout_story(conn, payout_id)
        if story is None:
            raise no_such("payout")
        decisions = await list_decisions_about(conn, payout_id=payout_id)
    in_force = story.payout["version"]
    change_vout = next((each["change_vout"] for each in story.versions if each["number"] == in_force), None)
    return PayoutStoryOut(
        **_shown(story.payout),
        versions=[PayoutVersionOut(**each, in_force=each["number"] == in_force) for each in story.versions],
        member_list=[_member(each, change_vout) for each in story.members],
        children=story.children,
        decisions=[WithdrawalDecisionOut(**each) for each in decisions],
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: row[name] for name in PayoutOut.model_fields if name in row}
    confirmations = depth(row["block_height"], row["tip_height"] or 0)
    return {**names, "confirmations": confirmations, "waits_for": _waits_for(row)}


def _member(row: Mapping[str, Any], change_vout: int | None) -> PayoutMemberOut:
    shifted = change_vout is not None and change_vout <= row["place"]
    return PayoutMemberOut(
        withdrawal_id=row["id"],
        account_id=row["account_id"],
        wallet_id=row["wallet_id"],
        place=row["place"],
        vout=row["place"] + 1 if shifted else row["place"],
        address=row["address"],
        amount_sat=row["amount_sat"],
        paid_sat=row["paid_sat"],
        miner_fee_sat=row["miner_fee_sat"],
        service_fee_sat=msat_to_sat_floor(Msat(row["service_fee_msat"])),
        status=row["status"],
    )


def _waits_for(row: Mapping[str, Any]) -> str | None:
    status = row["status"]
    if status in {PayoutStatus.FINAL, PayoutStatus.DISSOLVED}:
        return None
    if row["on_hold"]:
        return "an operator, who has put it on hold"
    words = {
        PayoutStatus.PLANNED: "its signatures",
        PayoutStatus.SIGNED: "the network to take it",
        PayoutStatus.BROADCAST: "a block",
        PayoutStatus.CONFIRMED: "more blocks above it",
    }
    return row["problem"] or words[PayoutStatus(status)]
