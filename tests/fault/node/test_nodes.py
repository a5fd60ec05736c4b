"""A node of ours, its peer, the payee or the chain goes away while a payment is on its way.

Each test puts back what it took down. What a pending payment waits for must be the truth while it waits.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.contracts import workflow_ids
from engine.domain.ids import NodeName
from infra.local.home import BANK
from infra.local.lightning import connect
from infra.local.network import ROLES
from infra.local.outside import Outside, outside, sync_network
from infra.local.services import node as local_node
from infra.local.stack import Stack
from tests.fixtures.lnd_proxy import lnd_proxy
from tests.fixtures.own_process import nodes, own_worker
from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.held_payment import Lasts, held_payment, node_of, waits_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

ROOT_KEY = 77
AWAY = ("node_unavailable", "outcome_unknown")


@asynccontextmanager
async def _down(stack: Stack, *names: str) -> AsyncIterator[None]:
    """Down in good order for the length of the block; afterwards the whole network is usable again."""
    for name in names:
        await asyncio.to_thread(stack.hold, name)
    try:
        yield
    finally:
        for name in names:
            await asyncio.to_thread(stack.release, name)
        await sync_network(stack)


async def test_the_only_peer_is_offline_and_the_payment_waits_for_it(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    async with _down(bank.stack, "outside-1"):
        answer = await alice.pay(invoice, wait_s=0)
        waiting = (await waits_for(alice, answer.json()["id"], "node_unavailable"))["waiting"]
        assert (waiting["needs_operator"], waiting["detail"]) == (False, "the node cannot take it now")
    assert (await alice.final(answer.json()["id"]))["status"] == "settled"


async def test_a_middle_node_dies_with_the_htlc_and_the_payee_settles_meanwhile(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    async with _down(bank.stack, "outside-1"):
        await shop.settle(held)
        assert (await alice.payment(payment_id))["status"] == "pending"
    assert (await alice.final(payment_id))["status"] == "settled"


@pytest.mark.timeout(480)
async def test_our_node_is_stopped_and_wakes_again(bank: Bank, shop: Outside, lasts: Lasts) -> None:
    """It holds its connections and says nothing. One payment is in flight, another one is asked for meanwhile."""
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    with bank.stack.frozen("lnd-1"), bank.stack.frozen("lnd-2"):
        answer = await alice.pay(await shop.invoice(1_000_000), wait_s=0)
        waiting = (await waits_for(alice, answer.json()["id"], *AWAY))["waiting"]
        assert waiting["needs_operator"] is False
        await shop.settle(held)
        await lasts(120)
        pending = [(await alice.payment(each))["status"] for each in (payment_id, answer.json()["id"])]
        assert pending == ["pending"] * 2
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"


async def test_our_node_is_killed_right_after_the_payments_row_was_written(bank: Bank, shop: Outside) -> None:
    """Stopped, so that it can have been asked for nothing; the row is written; killed."""
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    with bank.stack.frozen("lnd-2"):
        with bank.stack.frozen("lnd-1"):
            answer = await alice.pay(invoice, wait_s=0)
            node = await node_of(bank, answer.json()["id"])
            if node == "lnd-1":
                await asyncio.to_thread(bank.stack.kill, node, wait=False)
        if node == "lnd-2":
            await asyncio.to_thread(bank.stack.kill, node, wait=False)
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"
    await sync_network(bank.stack)
    assert (await shop.stubs.lightning.ListInvoices(ln.ListInvoiceRequest(reversed=True, num_max_invoices=1))).invoices[
        0
    ].amt_paid_msat == 2_000_000


async def test_bitcoind_is_away_and_a_node_that_comes_back_cannot_become_active(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    restarts = {name: bank.stack.process(name).restarts for name in BANK}
    await asyncio.to_thread(bank.stack.hold, "bitcoind")
    try:
        for name in BANK:
            await asyncio.to_thread(bank.stack.kill, name, wait=False)
        answer = await alice.pay(invoice, wait_s=0)
        assert (await waits_for(alice, answer.json()["id"], *AWAY))["status"] == "pending"
    finally:
        await asyncio.to_thread(bank.stack.release, "bitcoind")
        for name in BANK:
            await asyncio.to_thread(bank.stack.wait_back, name, restarts[name])
        await sync_network(bank.stack)
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"


@pytest.mark.timeout(660)
async def test_bitcoind_is_away_while_payments_end_and_another_is_asked_for(
    bank: Bank, shop: Outside, lasts: Lasts
) -> None:
    """One is settled by its payee meanwhile, one is cancelled afterwards."""
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    called_off_id, called_off = await held_payment(alice, shop)
    await asyncio.to_thread(bank.stack.hold, "bitcoind")
    try:
        await shop.settle(held)
        answer = await alice.pay(await shop.invoice(1_000_000), wait_s=0)
        assert (await waits_for(alice, answer.json()["id"], "node_unavailable"))["waiting"]["needs_operator"] is False
        await lasts(300)
    finally:
        await asyncio.to_thread(bank.stack.release, "bitcoind")
        await sync_network(bank.stack)
    assert (await alice.payment(called_off_id))["status"] == "pending"
    await shop.cancel(called_off.payment_hash)
    told = (await alice.final(called_off_id, limit_s=120))["failure"]["code"]
    assert told in {"incorrect_payment_details", "payment_timeout"}  # the latter when the node's minute is over
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"


@asynccontextmanager
async def _without_blocks(stack: Stack) -> AsyncIterator[None]:
    """bitcoind tells which block is the newest, and gives nobody what is in it: every node falls behind."""
    settings = stack.home.folder / "bitcoind/bitcoin.conf"
    usual = await asyncio.to_thread(settings.read_text)
    listed = str(await asyncio.to_thread(stack.bitcoin().call, "help")).splitlines()
    shown = [line.split()[0] for line in listed if line and not line.startswith("==")]
    allowed = ",".join({*shown, "generatetoaddress"} - {"getblock"})  # what mines is not shown
    await _restart_bitcoind(stack, settings, f"{usual}rpcwhitelist=millrace:{allowed}\n")
    try:
        yield
    finally:
        await _restart_bitcoind(stack, settings, usual)


async def _restart_bitcoind(stack: Stack, settings: Path, content: str) -> None:
    await asyncio.to_thread(stack.hold, "bitcoind")
    await asyncio.to_thread(settings.write_text, content)
    await asyncio.to_thread(stack.release, "bitcoind")


async def test_a_node_behind_the_chain_is_sent_nothing_until_it_has_caught_up(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with AsyncExitStack() as entered:
        ours = [await entered.enter_async_context(outside(bank.stack, name)) for name in BANK]

        async def behind() -> bool | None:
            infos = [await node.stubs.lightning.GetInfo(ln.GetInfoRequest()) for node in ours]
            return True if not any(info.synced_to_chain for info in infos) else None

        async with _without_blocks(bank.stack):
            await asyncio.to_thread(bank.stack.mine, 1)
            await eventually(behind, "both nodes to fall behind")
            answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
            waiting = (await waits_for(alice, answer.json()["id"], "node_unavailable"))["waiting"]
            assert waiting["needs_operator"] is False
    await sync_network(bank.stack)
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"


NOT_ITS_OWN = ("SubscribeInvoices", "ListInvoices", "LookupInvoiceV2", "CancelInvoice", "TrackPayments")
"""What a pump would take from a stranger as its own."""


async def test_another_node_at_the_address_is_asked_for_nothing(bank: Bank, shop: Outside) -> None:
    """The settings lead both names to outside-2, which could pay; it is not the node that was adopted."""
    alice = await bank.open_account(funds_msat=9_000_000)
    home = bank.stack.home
    async with lnd_proxy(bank.stack, "outside-2") as stranger:
        strange = {
            "address": stranger.address,
            "tls_cert": str(home.certificate("outside-2")),
            "macaroon": str(home.macaroon("outside-2", "admin")),
        }
        async with AsyncExitStack() as entered:
            for method in NOT_ITS_OWN:
                fault = stranger.refuse(method, grpc.StatusCode.UNAVAILABLE, "not here")
                entered.enter_context(stranger.always(fault))
            settings = nodes(bank.stack, "worker", dict.fromkeys(BANK, strange))
            await entered.enter_async_context(own_worker(bank.stack, settings, until_reported=False))
            await bank.database.execute("UPDATE bank.nodes SET reported_at = clock_timestamp()")  # a moment ago
            async with outside(bank.stack, "outside-1") as payee:
                answer = await alice.pay(await payee.invoice(2_000_000), wait_s=0)
            stuck = await waits_for(alice, answer.json()["id"], "node_replaced")
            assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
            await _restart_pumps(bank)
        assert "SendPaymentV2" not in stranger.calls
    assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"


async def _restart_pumps(bank: Bank) -> None:
    """They have called an operator, who ends their pause: the next worker to start begins them anew."""
    client = await bank.temporal()
    for name in BANK:
        await client.get_workflow_handle(workflow_ids.pump(NodeName(name))).terminate("mended")


async def test_a_hold_invoice_is_settled_after_it_has_expired(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop, expiry_s=8)
    asked = await shop.look_up(held.payment_hash)

    async def expired() -> bool | None:
        return True if time.time() > asked.creation_date + asked.expiry + 1 else None

    await eventually(expired, "the invoice to expire")
    await shop.settle(held)
    assert (await alice.final(payment_id))["status"] == "settled"


async def test_a_held_payment_that_runs_into_its_height_is_sent_back(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    expiry_height = (await shop.look_up(held.payment_hash)).htlcs[0].expiry_height
    height = int(await asyncio.to_thread(bank.stack.bitcoin().call, "getblockcount"))
    await asyncio.to_thread(bank.stack.mine, expiry_height - height - 10)
    failed = await alice.final(payment_id, limit_s=120)
    assert failed["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == 9_000_000
    await sync_network(bank.stack)


async def test_a_hop_that_has_raised_its_fee_above_the_cap_is_not_paid(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with outside(bank.stack, "outside-1") as hop:
        await _set_base_fee(hop, 100_000)
        try:
            answer = await alice.pay(await shop.invoice(2_000_000), max_fee_msat=50_000)
            ended = await alice.final(answer.json()["id"])
        finally:
            await _set_base_fee(hop, 1_000)
    assert (ended["status"], ended["fee_msat"]) == ("failed", 0)
    assert ended["failure"]["code"] in {"fee_limit_exceeded", "no_route"}
    assert (await alice.wallet())["available_msat"] == 9_000_000


async def _set_base_fee(hop: Outside, base_fee_msat: int) -> None:
    policy = ln.PolicyUpdateRequest(base_fee_msat=base_fee_msat, fee_rate_ppm=1, time_lock_delta=80)
    setattr(policy, "global", True)
    answer = await hop.stubs.lightning.UpdateChannelPolicy(policy)
    assert not answer.failed_updates, answer


async def test_two_hundred_payments_at_once_through_one_channel(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=300_000_000)
    invoices = await asyncio.gather(*(shop.invoice(1_001_000 + number) for number in range(200)))
    payments = await asyncio.gather(*(_persist(alice, invoice) for invoice in invoices))
    ends = await asyncio.gather(*(alice.final(payment_id, limit_s=120) for payment_id in payments))
    assert {end["status"] for end in ends} == {"settled"}
    spent = sum(end["amount_msat"] + end["fee_msat"] for end in ends)
    assert (await alice.wallet())["available_msat"] == 300_000_000 - spent


async def _persist(alice: Account, invoice: str) -> str:
    """The id of the payment, however often a node that is too busy to report is away for the API."""
    key = secrets.token_hex(8)
    while (answer := await alice.pay(invoice, key=key, wait_s=60)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        await asyncio.sleep(0.2)
    assert answer.status_code in {200, 201, 202}, answer.text
    return str(answer.json()["id"])


async def test_a_revoked_macaroon_calls_an_operator_and_a_new_one_lets_it_go_on(
    bank: Bank, shop: Outside, tmp_path: Path
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with AsyncExitStack() as entered:
        admins = {name: await entered.enter_async_context(connect(local_node(bank.stack.home, name))) for name in BANK}
        permissions = [ln.MacaroonPermission(entity="uri", action=call) for call in ROLES["worker"]]
        macaroons = {}
        for name, admin in admins.items():
            baked = await admin.lightning.BakeMacaroon(
                ln.BakeMacaroonRequest(permissions=permissions, root_key_id=ROOT_KEY)
            )
            macaroons[name] = tmp_path / f"{name}.macaroon"
            macaroons[name].write_bytes(bytes.fromhex(baked.macaroon))
        revocable = {name: {"macaroon": str(file)} for name, file in macaroons.items()}
        async with own_worker(bank.stack, nodes(bank.stack, "worker", revocable)) as worker:
            assert (await alice.pay(await shop.invoice(1_000_000))).json()["status"] == "settled"
            for admin in admins.values():
                await admin.lightning.DeleteMacaroonID(ln.DeleteMacaroonIDRequest(root_key_id=ROOT_KEY))
            answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
            stuck = await waits_for(alice, answer.json()["id"], "node_refuses")
            assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
            await worker.restart(nodes(bank.stack, "worker", {}))
            assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"
