"""Quote a withdrawal: the use case, for any door. What it would cost at each speed; nothing is held or promised.

An address of one of our users is quoted as any other, until it is paid: then it costs no miner fee.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.payment_cost import service_fee
from api.service.quote.answer import WarningOut
from api.service.resources import Resources
from api.service.withdrawal.market import Market, read_market
from api.service.withdrawal.order import check_size
from api.service.withdrawal.target import Target, agree_amount, read_target
from engine.bank.limit import Payer, find_excess, get_payer
from engine.domain.errors import Invalid
from engine.domain.ids import ApiKeyId, WalletId
from engine.domain.limit import exceeded
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat
from engine.domain.withdrawal.fee_rate import Bound
from engine.domain.withdrawal.script import dust_sat
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed
from engine.views.balance import get_balance


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalQuoteOrder:
    """The withdrawal that a quote is wanted for."""

    wallet_id: WalletId
    address: str
    amount_sat: Sat | None = None
    send_all: bool = False
    fee_from: FeeFrom = "balance"


class SpeedQuoteOut(BaseModel):
    """What a withdrawal would cost at one speed now."""

    fee_sat: int = Field(description="In the next batch, with what waits now: your share and our fee.")
    miner_fee_sat: int = Field(description="Your share in the next batch.")
    alone_fee_sat: int = Field(description="In a transaction of its own: miner fee and our fee.")
    max_fee_sat: int = Field(
        description="The cap, unless you send another `max_fee_sat`: twice the miner fee alone at the present rate, at "
        "least that at the lowest rate that this bank pays, and our fee."
    )
    waiting: int = Field(description="How many wait for the next batch.")
    rate_sat_kvb: int = Field(description="The fee rate, in sat per 1,000 virtual bytes.", examples=[12_000])
    rate_source: str = Field(description="Where the rate comes from.", examples=["bitcoind"])
    rate_at: datetime | None = Field(description="When it was estimated; null: it does not age.")
    rate_bounded_by: Bound | None = Field(
        description="Why it is not the estimate: `floor` or `ceiling` of this bank's rules, or the `node`'s minimum."
    )
    target_blocks: int = Field(description="Within how many blocks it is expected to be confirmed.")
    window_s: int = Field(description="How long the first in a batch waits for others.")
    expected_s: int = Field(description="How long until a block has it, by the window and 600 s a block.")


class WithdrawalQuoteOut(BaseModel):
    """What a withdrawal would cost, and what may be withdrawn."""

    address: str
    amount_sat: int = Field(description="Of `send_all`, the whole balance, out of which the fees are paid.")
    service_fee_sat: int = Field(description="Our fee, which is part of every `fee_sat` here.")
    speeds: Mapping[Speed, SpeedQuoteOut]
    minimum_sat: int = Field(description="The smallest withdrawal to this address.")
    maximum_sat: int = Field(description="The balance: all that could be withdrawn, with the fees out of it.")
    needs_approval: bool = Field(description="Whether an operator must approve it.")
    warning: WarningOut | None = Field(
        description="Why it would be refused now: `insufficient_funds`, `limit_exceeded` or `spend_limit_exceeded` at "
        "speed `standard`."
    )


async def quote_withdrawal(resources: Resources, caller: Caller, order: WithdrawalQuoteOrder) -> WithdrawalQuoteOut:
    """What it would cost now. Raises what the withdrawal would raise, as far as that is known before it."""
    target = read_target(order.address, resources.settings.bitcoin_network)
    asked_sat = agree_amount(target, order.amount_sat, send_all=order.send_all)
    async with resources.reading() as conn:
        payer = await get_payer(conn, caller.account_id, order.wallet_id, ApiKeyId(caller.key_id))
        market = await read_market(conn)
        balance = await get_balance(conn, payer.ledger_account_id)
    payer.require_active()
    check_size(market, target, asked_sat, None)
    available_msat = Msat(max(0, balance.available_msat))
    amount_sat = msat_to_sat_floor(available_msat) if asked_sat is None else asked_sat
    if amount_sat < 1:
        raise Invalid("There is nothing in this wallet to withdraw.", code="amount_too_small", field="send_all")
    ours_sat = msat_to_sat_floor(await service_fee(resources, payer, "withdrawal", sat_to_msat(amount_sat)))
    speeds = {speed: _at(market, target, amount_sat, ours_sat, speed) for speed in Speed}
    taken_from_amount = order.send_all or order.fee_from == "amount"
    held_sat = amount_sat if taken_from_amount else amount_sat + speeds[Speed.STANDARD].max_fee_sat
    return WithdrawalQuoteOut(
        address=target.address,
        amount_sat=amount_sat,
        service_fee_sat=ours_sat,
        speeds=speeds,
        minimum_sat=max(market.rules.minimum_sat, dust_sat(target.script)),
        maximum_sat=msat_to_sat_floor(available_msat),
        needs_approval=amount_sat > market.rules.approval_above_sat,
        warning=await _warning(resources, payer, sat_to_msat(Sat(held_sat)), available_msat),
    )


def _at(market: Market, target: Target, amount_sat: Sat, ours_sat: Sat, speed: Speed) -> SpeedQuoteOut:
    rate, rules = market.rate(speed), market.rules.speeds[speed]
    share_sat = market.share_in_batch(target.script, amount_sat, speed)
    return SpeedQuoteOut(
        fee_sat=share_sat + ours_sat,
        miner_fee_sat=share_sat,
        alone_fee_sat=market.share_alone(target.script, amount_sat, rate.rate_sat_kvb) + ours_sat,
        max_fee_sat=market.fee_cap(target.script, amount_sat, speed) + ours_sat,
        waiting=market.waiting(speed),
        rate_sat_kvb=rate.rate_sat_kvb,
        rate_source=rate.source,
        rate_at=rate.at,
        rate_bounded_by=rate.bounded_by,
        target_blocks=rules.target_blocks,
        window_s=rules.window_s,
        expected_s=market.expected_s(speed),
    )


async def _warning(resources: Resources, payer: Payer, held_msat: Msat, available_msat: Msat) -> WarningOut | None:
    if held_msat > available_msat:
        detail = f"Amount and fee cap are {held_msat:,} msat, and {available_msat:,} msat are available."
        return WarningOut(code="insufficient_funds", detail=detail)
    async with resources.reading() as conn:
        excess = await find_excess(conn, resources.limits, payer, "withdrawal", held_msat)
    if excess is None:
        return None
    code, detail, _fields = exceeded(excess)
    return WarningOut(code=code, detail=detail)
