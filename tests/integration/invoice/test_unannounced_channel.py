"""A node of ours whose only channel is announced to nobody: it is paid over the way that its invoices name.

On a stack of its own, whose bank gets a third node; API and worker of the test know that one alone.
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from engine.clients.lnd.client import LndNode
from engine.clients.lnd.invoice import InvoiceNode
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.invoicesrpc import invoices_pb2 as inv
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.settings import NodeSettings
from infra.local import environment, services
from infra.local.lightning import Node, Stubs, active, connect
from infra.local.outside import PAY_LIMIT_S, Outside, PaymentFailed, outside, sync_network
from infra.local.stack import Stack
from infra.local.tools import Tools
from tests.fixtures.own_process import own_api, own_worker
from tests.fixtures.stack import Account, Bank, Json, enter_bank, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ASIDE = NodeName("lnd-3")
CAPACITY_SAT = 4_000_000


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def wide_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("wide") / "home", apis=1, workers=1) as running:
        yield running


@asynccontextmanager
async def third_node(stack: Stack) -> AsyncIterator[Node]:
    """One more LND, without any channel, until the block ends."""
    home, port, peer_port = stack.home, free_port(), free_port()
    node = Node(ASIDE, f"127.0.0.1:{port}", home.certificate(ASIDE), home.macaroon(ASIDE, "admin"))
    command = services.lnd_command(home, Tools.from_json(os.environ["MILLRACE_TOOLS"]), ASIDE, port, peer_port)
    with home.log(ASIDE).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *map(str, command)),
            env=environment.inherited(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:

        async def serves() -> bool | None:
            return True if await active(node) else None

        await eventually(serves, "the third node to serve", limit_s=120)
        async with outside(stack, "outside-1") as peer:
            await _open_unannounced(stack, peer, node, peer_port)
        yield node
    finally:
        process.terminate()
        await process.wait()


async def _open_unannounced(stack: Stack, peer: Outside, node: Node, peer_port: int) -> None:
    """The peer opens it, so that all of it is what our node can receive."""
    settings = settings_of(node)
    ours = LndNode(ASIDE, settings)
    try:
        pubkey = (await ours.get_identity()).pubkey
        address = ln.LightningAddress(pubkey=pubkey, host=f"127.0.0.1:{peer_port}")
        await peer.stubs.lightning.ConnectPeer(ln.ConnectPeerRequest(addr=address, timeout=10))
        await peer.stubs.lightning.OpenChannelSync(
            ln.OpenChannelRequest(
                node_pubkey=bytes.fromhex(pubkey), local_funding_amount=CAPACITY_SAT, private=True, sat_per_vbyte=2
            )
        )
        await asyncio.to_thread(stack.mine, 6)
        await sync_network(stack)

        async def usable() -> bool | None:
            return True if (await ours.read_room()).inbound_msat > 0 else None

        await eventually(usable, "the channel to be usable")
    finally:
        await ours.close()


def settings_of(node: Node) -> NodeSettings:
    return NodeSettings(address=node.address, tls_cert=node.certificate, macaroon=node.macaroon)


@dataclass
class Wide:
    """The bank, an API that knows the third node alone, and that node."""

    bank: Bank
    api: httpx.AsyncClient
    node: Node

    async def invoice(self, user: Account, amount_msat: int | None) -> Json:
        body = {"wallet_id": user.wallet_id} | ({} if amount_msat is None else {"amount_msat": amount_msat})
        answer = await self.api.post("/v1/invoices", json=body, headers=user.headers)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made


@pytest_asyncio.fixture(scope="module")
async def wide(wide_stack: Stack) -> AsyncIterator[Wide]:
    async with AsyncExitStack() as entered:
        bank = await entered.enter_async_context(enter_bank(wide_stack))
        node = await entered.enter_async_context(third_node(wide_stack))
        told = {ASIDE: json.loads(settings_of(node).model_dump_json())}
        settings = {"MILLRACE_NODES": json.dumps(told)}
        await entered.enter_async_context(own_worker(wide_stack, settings, until_reported=False))
        api = await entered.enter_async_context(own_api(wide_stack, settings))

        async def reported() -> bool | None:
            inbound_msat = await bank.database.fetchval("SELECT inbound_msat FROM bank.nodes WHERE name = $1", ASIDE)
            return True if inbound_msat else None

        await eventually(reported, "the third node to be adopted and to report", limit_s=90)
        yield Wide(bank, api, node)


@pytest.mark.parametrize("amount_msat", [1_500_000, None])
async def test_an_outside_node_pays_it_over_the_way_that_the_invoice_names(wide: Wide, amount_msat: int | None) -> None:
    alice = await wide.bank.open_account()
    made = await wide.invoice(alice, amount_msat)
    assert made["warning"] is None
    assert 0.9 * CAPACITY_SAT < made["receivable_msat"] // 1_000 < CAPACITY_SAT
    async with outside(wide.bank.stack, "outside-2") as payer:
        asked = await payer.stubs.lightning.DecodePayReq(ln.PayReqString(pay_req=made["bolt11"]))
        assert len(asked.route_hints) == 1
        await payer.pay(made["bolt11"], amount_msat=0 if amount_msat else 1_500_000)
    credited = await wide.bank.credited(alice, made["id"])
    assert credited["received_msat"] == 1_500_000


async def test_an_invoice_above_the_inbound_says_so_and_is_not_paid(wide: Wide) -> None:
    alice = await wide.bank.open_account()
    most_msat = (await wide.invoice(alice, None))["receivable_msat"]
    within, above = await wide.invoice(alice, most_msat), await wide.invoice(alice, 1_000 * CAPACITY_SAT)
    assert within["warning"] is None
    assert above["warning"]["code"] == "above_inbound"
    async with outside(wide.bank.stack, "outside-1") as payer, connect(wide.node) as payee:
        await _pay_in_vain(payer, payee, above["bolt11"])


async def _pay_in_vain(payer: Outside, payee: Stubs, bolt11: str) -> None:
    """The payer splits the payment, and gives up when no further part fits.

    The payee would keep the parts that have come for two minutes. It cancels its invoice as soon as the payer has
    given up.
    """
    given_up, ended = ln.FAILURE_REASON_NONE, False
    request = router.SendPaymentRequest(payment_request=bolt11, fee_limit_msat=10_000, timeout_seconds=PAY_LIMIT_S)
    async for payment in payer.stubs.router.SendPaymentV2(request):
        if payment.failure_reason and not given_up:
            given_up = payment.failure_reason
            await payee.invoices.CancelInvoice(inv.CancelInvoiceMsg(payment_hash=bytes.fromhex(payment.payment_hash)))
        ended = payment.status == ln.Payment.FAILED
    assert (given_up, ended) == (ln.FAILURE_REASON_NO_ROUTE, True)


async def test_without_the_way_in_the_invoice_nobody_could(wide: Wide) -> None:
    """What every invoice of such a node was like."""
    ours = InvoiceNode(ASIDE, settings_of(wide.node))
    try:
        bolt11 = await ours.add_invoice(
            preimage=secrets.token_bytes(32),
            amount_msat=Msat(1_500_000),
            memo=None,
            description_hash=None,
            expiry_s=600,
        )
    finally:
        await ours.close()
    async with outside(wide.bank.stack, "outside-2") as payer:
        with pytest.raises(PaymentFailed, match="NO_ROUTE"):
            await payer.pay(bolt11)
