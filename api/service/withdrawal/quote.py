"""Quote a withdrawal: the use case, for any door. What it would cost at each speed; nothing is held or promised.

An address of one of our users is quoted as any other, until it is paid: then it costs no miner fee.
"""

from dataclasses import dataclass

from api.service.auth import Caller
from api.service.payment_cost import service_fee
from api.service.resources import Resources
from api.service.withdrawal.market import Market
from api.service.withdrawal.present_market import read_market
from api.service.withdrawal.quote_shape import SpeedQuoteOut, WithdrawalQuoteOut
from api.service.withdrawal.size import check_size
from api.service.withdrawal.target import Target, agree_amount, read_target
from api.service.withdrawal.warning import warn_of
from engine.bank.limit import get_payer
from engine.domain.ids import ApiKeyId, WalletId
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat
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


async def quote_withdrawal(resources: Resources, caller: Caller, order: WithdrawalQuoteOrder) -> WithdrawalQuoteOut:
    """What it would cost now. Raises what the withdrawal would raise, as far as that is known before it."""
    target = read_target(order.address, resources.settings.bitcoin_network)
    asked_sat = agree_amount(target, order.amount_sat, send_all=order.send_all)
    async with resources.reading() as conn:
        payer = await get_payer(conn, caller.account_id, order.wallet_id, ApiKeyId(caller.key_id))
        market = await read_market(conn)
        balance = await get_balance(conn, payer.ledger_account_id)
    payer.require_active()
    available_msat = Msat(max(0, balance.available_msat))
    amount_sat = msat_to_sat_floor(available_msat) if asked_sat is None else asked_sat
    check_size(market.rules, target, amount_sat, None)
    ours_sat = msat_to_sat_floor(await service_fee(resources, payer, "withdrawal", sat_to_msat(amount_sat)))
    speeds = {speed: _at(market, target, amount_sat, ours_sat, speed) for speed in Speed}
    taken_from_amount = order.send_all or order.fee_from == "amount"
    held_sat = amount_sat if taken_from_amount else amount_sat + speeds[Speed.STANDARD].max_fee_sat
    return WithdrawalQuoteOut(
        address=target.address,
        amount_sat=amount_sat,
        service_fee_sat=ours_sat,
        speeds=speeds,
        minimum_sat=market.minimum_sat(target.script),
        maximum_sat=msat_to_sat_floor(available_msat),
        needs_approval=amount_sat > market.rules.approval_above_sat,
        warning=await warn_of(resources, payer, sat_to_msat(Sat(held_sat)), available_msat),
    )


def _at(market: Market, target: Target, amount_sat: Sat, ours_sat: Sat, speed: Speed) -> SpeedQuoteOut:
    rate, rules = market.rate(speed), market.rules.speeds[speed]
    share_sat = market.share_in_batch(target.script, amount_sat, speed)
    return SpeedQuoteOut(
        fee_sat=share_sat + ours_sat,
        miner_fee_sat=share_sat,
        alone_fee_sat=market.share_alone(target.script, amount_sat, rate.rate_sat_kvb) + ours_sat,
        max_fee_sat=market.fee_cap(target.script, amount_sat, speed) + ours_sat,
        waiting=market.sharing(speed),
        rate_sat_kvb=rate.rate_sat_kvb,
        rate_source=rate.source,
        rate_at=rate.at,
        rate_bounded_by=rate.bounded_by,
        target_blocks=rules.target_blocks,
        window_s=rules.window_s,
        expected_s=market.expected_s(speed),
    )
