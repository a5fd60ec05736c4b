"""An order to withdraw, and the order checked, as the request that the workflow is started with.

Nothing is held here. Balance, limits, coins and the account are checked where the money is held, in one transaction.
"""

from dataclasses import dataclass

from api.service.auth import Caller
from api.service.fresh_price import require_fresh_prices
from api.service.resources import Resources
from api.service.withdrawal.present_market import read_market
from api.service.withdrawal.size import check_size
from api.service.withdrawal.target import agree_amount, read_target
from engine.bank.chain.address import find_owners
from engine.bank.limit import get_payer
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.amount_to_pay import refuse_self_payment
from engine.domain.ids import ApiKeyId, WalletId, WithdrawalId
from engine.domain.money import Msat, Sat, msat_to_sat_floor
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed
from engine.views.balance import get_balance


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalOrder:
    """What a caller asks to be paid on chain, out of one wallet."""

    wallet_id: WalletId
    address: str
    amount_sat: Sat | None = None
    """Required where neither the URI names one nor `send_all` is set."""
    send_all: bool = False
    speed: Speed = Speed.STANDARD
    alone: bool = False
    unlinked: bool = False
    wait_for_unlinked: bool = False
    """Wait where no unlinked coins are there now; else it is refused."""
    fee_from: FeeFrom = "balance"
    max_fee_sat: Sat | None = None
    memo: str | None = None
    external_id: str | None = None
    key: str
    """The idempotency key."""
    body_hash: bytes
    """SHA-256 of the order, by which a repeat is told from another order with the same key."""


async def check(
    resources: Resources, caller: Caller, order: WithdrawalOrder, withdrawal_id: WithdrawalId
) -> WithdrawalRequest:
    """The request with every default made explicit. Raises what a caller can correct, and Unavailable."""
    target = read_target(order.address, resources.settings.bitcoin_network)
    amount_sat = agree_amount(target, order.amount_sat, send_all=order.send_all)
    account_id, key_id = caller.account_id, ApiKeyId(caller.key_id)
    async with resources.reading() as conn:
        payer = await get_payer(conn, account_id, order.wallet_id, key_id)
        market = await read_market(conn)
        payee = (await find_owners(conn, [target.address])).get(target.address)
        balance = await get_balance(conn, payer.ledger_account_id)
    refuse_self_payment(payee, order.wallet_id)
    check_size(market.rules, target, amount_sat, order.max_fee_sat)
    await require_fresh_prices(resources, payer, "withdrawal" if payee is None else "internal")
    # Without an amount, all that is there now says how many coins it takes.
    about_sat = amount_sat or max(Sat(1), msat_to_sat_floor(Msat(balance.available_msat)))
    return WithdrawalRequest(
        withdrawal_id=withdrawal_id,
        account_id=account_id,
        wallet_id=order.wallet_id,
        idempotency_key=order.key,
        body_hash=order.body_hash.hex(),
        hot_wallet=market.wallet,
        address=target.address,
        script=target.script.hex(),
        amount_sat=amount_sat,
        fee_from="amount" if order.send_all else order.fee_from,
        speed=order.speed,
        alone=order.alone,
        unlinked=order.unlinked,
        max_fee_sat=order.max_fee_sat,
        fee_cap_sat=market.fee_cap(target.script, about_sat, order.speed),
        memo=order.memo,
        external_id=order.external_id,
        api_key_id=key_id,
        wait_for_unlinked=order.unlinked and order.wait_for_unlinked,
    )
