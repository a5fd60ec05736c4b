"""Quotes on real nodes: what a way costs is found out by trying it, and a payment costs no more than it was told.

The bank's nodes reach the shop (outside-2) over outside-1, which takes a fee. Whoever keeps a probe is shown to gain
nothing: the books agree meanwhile, and nobody waits for him a second time.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as redis

from api.service.quote.quote_run import Route
from engine.clients.bolt11 import decode
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from infra.local.home import BANK
from infra.local.outside import Outside, outside
from tests.fixtures.stack import Bank, eventually
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.reconciliation import reconcile

pytestmark = pytest.mark.integration


def some_msat() -> int:
    """An amount that no other test has asked about."""
    return 1_000_000 + secrets.randbelow(1_000_000)


@asynccontextmanager
async def base_fee(bank: Bank, fee_msat: int) -> AsyncIterator[None]:
    """outside-1 takes this for each payment, and every node of ours knows; afterwards what it took before."""
    async with outside(bank.stack, "outside-1") as hop:
        await _set_base_fee(bank, hop, fee_msat)
        try:
            yield
        finally:
            await _set_base_fee(bank, hop, 1_000)
            await forget_failures(bank)


async def _set_base_fee(bank: Bank, hop: Outside, fee_msat: int) -> None:
    policy = ln.PolicyUpdateRequest(base_fee_msat=fee_msat, fee_rate_ppm=1, time_lock_delta=80)
    setattr(policy, "global", True)
    assert not (await hop.stubs.lightning.UpdateChannelPolicy(policy)).failed_updates
    me = (await hop.stubs.lightning.GetInfo(ln.GetInfoRequest())).identity_pubkey
    for name in BANK:
        async with outside(bank.stack, name) as node:

            async def told(node: Outside = node) -> bool | None:
                edges = (await node.stubs.lightning.DescribeGraph(ln.ChannelGraphRequest())).edges
                own = [edge.node1_policy if edge.node1_pub == me else edge.node2_policy for edge in edges]
                return True if all(policy.fee_base_msat == fee_msat for policy in own) else None

            await eventually(told, f"{name} to hear of the new fee")


@asynccontextmanager
async def kept_htlcs(bank: Bank) -> AsyncIterator[None]:
    """Whatever comes through outside-1 stays there; at the end of the block it goes on."""
    async with outside(bank.stack, "outside-1") as hop:
        held = hop.stubs.router.HtlcInterceptor(_silence())
        await held.wait_for_connection()
        try:
            yield
        finally:
            held.cancel()


async def _silence() -> AsyncIterator[router.ForwardHtlcInterceptResponse]:
    await asyncio.Event().wait()
    yield router.ForwardHtlcInterceptResponse()


async def free_turn(bank: Bank, shop: Outside) -> bool:
    """The shop may be probed at once; whether it was its rest that has ended."""
    payee = (await shop.stubs.lightning.GetInfo(ln.GetInfoRequest())).identity_pubkey
    async with redis.from_url(bank.stack.environment()["MILLRACE_REDIS_URL"]) as cache:
        return bool(await cache.delete(f"probe:{payee}"))


async def forget_failures(bank: Bank) -> None:
    """After an accident LND may shun the only way for minutes."""
    for name in BANK:
        async with outside(bank.stack, name) as node:
            await node.stubs.router.ResetMissionControl(router.ResetMissionControlRequest())


async def test_a_quote_is_kept_to_the_millisatoshi(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(some_msat())
    told = await alice.quote(invoice)
    assert (told["kind"], told["fee_source"], told["warning"]) == ("lightning", "probe", None)
    assert 0 < told["fee_msat"] <= told["max_fee_msat"]
    assert (await alice.wallet())["held_msat"] == 0
    paid = (await alice.pay(invoice, max_fee_msat=told["max_fee_msat"])).json()
    assert (paid["status"], paid["fee_msat"]) == ("settled", told["fee_msat"])


async def test_a_repeated_quote_gets_the_same_answer_and_causes_no_second_probe(bank: Bank, shop: Outside) -> None:
    alice, bob = await bank.open_account(), await bank.open_account()
    invoice = await shop.invoice(some_msat())
    together = await asyncio.gather(*(user.quote(invoice) for user in (alice, bob) * 5))
    assert together == [together[0]] * 10
    assert together[0]["fee_source"] == "probe"
    assert await alice.quote(invoice) == together[0]
    assert await alice.quote(await shop.invoice(together[0]["amount_msat"])) == together[0]


@pytest.mark.parametrize("holder", ["the same way", "another way"])
async def test_a_caller_ahead_of_the_one_whose_turn_it_is_asks_for_the_same_answer(
    bank: Bank, shop: Outside, holder: str
) -> None:
    """He who has taken the payee's turn has not begun to ask yet, in another process."""
    alice = await bank.open_account()
    invoice = await shop.invoice(some_msat())
    found = decode(invoice, network="regtest")
    assert found.amount_msat is not None
    route = Route(payee=found.payee, amount_msat=found.amount_msat, bolt11=invoice, hints=found.route_hints)
    async with redis.from_url(bank.stack.environment()["MILLRACE_REDIS_URL"]) as cache:
        await cache.set(f"probe:{route.payee}", route.digest if holder == "the same way" else "another's", ex=30)
    told = await alice.quote(invoice)
    assert told["fee_source"] == ("probe" if holder == "the same way" else "estimate")
    assert await free_turn(bank, shop), "the turn is ended by him who took it"


async def test_an_invoice_that_cannot_be_paid_any_more_is_refused_as_its_payment_would_be(
    bank: Bank, shop: Outside
) -> None:
    """Whoever asks. Until it is paid, and again once a payment of it has failed, it is quoted."""
    alice, bob = await bank.open_account(funds_msat=9_000_000), await bank.open_account()

    async def told(destination: str) -> list[str]:
        bodies = [{"wallet_id": user.wallet_id, "destination": destination} for user in (alice, bob)]
        answers = [await user.post("/v1/payments/quote", body) for user, body in zip((alice, bob), bodies, strict=True)]
        return [answer.json().get("code") or answer.json()["kind"] for answer in answers]

    held = await shop.hold_invoice(some_msat())
    assert await told(held.bolt11) == ["lightning"] * 2
    payment_id = (await alice.pay(held.bolt11, wait_s=0)).json()["id"]
    await shop.accepted(held)
    assert await told(held.bolt11) == ["payment_in_progress"] * 2
    await shop.cancel(held.payment_hash)
    assert (await alice.final(payment_id))["status"] == "failed"
    assert await told(held.bolt11) == ["lightning"] * 2
    invoice = await shop.invoice(some_msat())
    assert (await alice.pay(invoice)).json()["status"] == "settled"
    assert await told(invoice) == ["invoice_already_paid"] * 2

    carol = await bank.open_account()
    paid, called_off = await carol.invoice(1_000), await carol.invoice(1_000)
    assert await told(paid["bolt11"]) == ["internal"] * 2
    assert (await alice.pay(paid["bolt11"])).json()["status"] == "settled"
    assert (await carol.post(f"/v1/invoices/{called_off['id']}/cancel")).status_code == 200
    assert await told(paid["bolt11"]) == ["invoice_already_paid"] * 2
    assert await told(called_off["bolt11"]) == ["invoice_cancelled"] * 2


async def test_an_amount_of_the_payers_choice_is_probed_as_well(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    told = await alice.quote(await shop.invoice(0), amount_msat=some_msat())
    assert (told["fee_source"], told["warning"]) == ("probe", None)


async def test_a_fee_that_is_raised_after_the_quote_is_not_paid_and_the_next_quote_tells_it(
    bank: Bank, shop: Outside
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(some_msat())
    told = await alice.quote(invoice)
    async with base_fee(bank, 100_000):
        ended = await alice.final((await alice.pay(invoice, max_fee_msat=told["max_fee_msat"])).json()["id"])
        assert (ended["status"], ended["failure"]["code"]) == ("failed", "fee_limit_exceeded")
        assert (await alice.wallet())["available_msat"] == 9_000_000
        dear = await shop.invoice(some_msat())
        told = await alice.quote(dear)
        assert told["fee_source"] == "probe"
        assert told["max_fee_msat"] == told["fee_msat"] > 100_000  # above what is allowed by default: the payer decides
        paid = (await alice.pay(dear, max_fee_msat=told["max_fee_msat"])).json()
        assert (paid["status"], paid["fee_msat"]) == ("settled", told["fee_msat"])


async def test_a_way_that_is_not_there_is_a_warning(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    nowhere = await alice.quote(Draft(amount="10u", timestamp=int(time.time())).text())
    assert (nowhere["fee_source"], nowhere["warning"]["code"]) == ("estimate", "no_route")
    assert nowhere["fee_msat"] == nowhere["max_fee_msat"] == 10_000
    huge = await alice.quote(await shop.invoice(100_000_000_000))
    assert (huge["fee_source"], huge["warning"]["code"]) == ("estimate", "insufficient_liquidity")


async def test_an_absent_service_makes_a_quote_less_sure_and_no_error(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(some_msat())
    with bank.stack.held("redis"):
        told = await alice.quote(invoice)
        assert (told["fee_source"], told["warning"]) == ("estimate", None)
        assert told["fee_msat"] < told["max_fee_msat"]
    with bank.stack.held("temporal"):
        told = await alice.quote(invoice)
        assert (told["fee_source"], told["warning"]["code"]) == ("estimate", "node_unavailable")
        assert told["fee_msat"] == told["max_fee_msat"]

    async def asked_again() -> bool | None:  # that nobody could be asked is not remembered
        return True if (await alice.quote(invoice))["warning"] is None else None

    await eventually(asked_again, "a node to be asked again")
    await free_turn(bank, shop)


async def test_a_probe_that_is_kept_disturbs_nothing_and_is_not_repeated(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with kept_htlcs(bank):
        told = await alice.quote(await shop.invoice(some_msat()))
        assert (told["fee_source"], told["warning"]["code"]) == ("estimate", "probe_unanswered")
        assert told["fee_msat"] < told["max_fee_msat"]  # by the map
        run = await reconcile(bank)
        assert (run["status"], run["findings"]) == ("clean", [])
        again = await alice.quote(await shop.invoice(some_msat()))
        assert (again["fee_source"], again["warning"]) == ("estimate", None)
    assert await free_turn(bank, shop)
    assert (await alice.quote(await shop.invoice(some_msat())))["fee_source"] == "probe"
