"""Our reader of invoices beside that of a real LND: whatever one takes and the other refuses is refused by name.

And what both have read LND begins, or refuses in a way that ends the payment: no invoice is "unknown" for ever.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from engine.clients import bolt11
from engine.clients.lnd.client import LndNode
from engine.clients.lnd.refusal import NotBegun, SendRefused
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.domain.errors import Invalid
from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.settings import NodeSettings
from infra.local.outside import outside
from infra.local.stack import Stack
from tests.fixtures.own_process import nodes
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.invoice.corpus import CORPUS, Known
from tests.helpers.invoice.mutation import invoices

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NODE = NodeName("lnd-1")
SEEDS = range(8)
EACH, SENT = 250, 12
"""So many invoices of each seed are read by both, and so many of those that both have read are paid."""
AMOUNT_MSAT = Msat(1_000)


@pytest_asyncio.fixture
async def node(stack: Stack) -> AsyncIterator[LndNode]:
    """One of the bank's nodes as its workers meet it."""
    settings = json.loads(nodes(stack, "worker", {})["MILLRACE_NODES"])[NODE]
    lnd = LndNode(NODE, NodeSettings.model_validate(settings))
    try:
        yield lnd
    finally:
        await lnd.close()


async def _read(node: LndNode, text: str) -> bolt11.Bolt11 | str:
    """As a payment's invoice is read, by the API and then by its node: what both read, or the code of the refusal."""
    try:
        ours = bolt11.decode(text, network="regtest")
        await node.check_invoice(ours.bolt11, ours.payment_hash, ours.amount_msat)
    except Invalid as refused:
        return refused.code
    return ours


async def _send(node: LndNode, ours: bolt11.Bolt11) -> str:
    """What comes of it: nobody has these payees."""
    updates = node.send_payment(
        bolt11=ours.bolt11,
        keysend=None,
        payment_hash=ours.payment_hash,
        amount_msat=AMOUNT_MSAT if ours.amount_msat is None else None,
        max_fee_msat=Msat(0),
        known_payment_index=0,
    )
    status = "nothing"
    try:
        async for update in updates:
            status = str(update.status)
    except (SendRefused, NotBegun) as refused:
        return type(refused).__name__
    return status


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_invoice_is_taken_by_one_reader_and_left_unknown_by_the_other(node: LndNode, seed: int) -> None:
    texts = list(invoices(seed, EACH, int(time.time())))
    read = [await _read(node, text) for text in texts]
    codes = Counter(each if isinstance(each, str) else "read" for each in read)
    assert set(codes) <= {"read", "invalid_destination", "wrong_network", "invoice_refused_by_node"}, codes
    assert codes["read"] > EACH // 20
    assert codes["invoice_refused_by_node"] > 0  # else the two were not compared where they differ
    sound = [each for each in read if isinstance(each, bolt11.Bolt11)][:SENT]
    ends = Counter(await asyncio.gather(*(_send(node, each) for each in sound)))
    assert set(ends) <= {"failed", "SendRefused", "NotBegun"}, ends


async def test_an_invoice_that_lnd_takes_and_we_refuse_is_refused_by_name_too(stack: Stack) -> None:
    """We are the stricter ones in some things, on purpose."""
    taken: Counter[str] = Counter()
    async with outside(stack, NODE) as lnd:
        for text in invoices(99, EACH, int(time.time())):
            try:
                bolt11.decode(text, network="regtest")
            except Invalid as refused:
                try:
                    await lnd.stubs.lightning.DecodePayReq(ln.PayReqString(pay_req=text))
                except grpc.aio.AioRpcError:
                    continue
                taken[refused.code] += 1
    assert set(taken) <= {"invalid_destination", "wrong_network"}
    assert taken


@pytest.mark.parametrize("known", CORPUS, ids=lambda known: f"{known['ours']}, LND: {known['lnd']}")
async def test_every_invoice_that_was_found_is_read_or_refused_by_name(node: LndNode, known: Known) -> None:
    expected = "invoice_refused_by_node" if known["ours"] == "read" and known["lnd"] != "read" else known["ours"]
    read = await _read(node, known["text"])
    assert (read if isinstance(read, str) else "read") == expected


async def test_a_sound_invoice_is_read_alike(node: LndNode) -> None:
    for amount in ("", "1m", "21u", "2500n", "10p"):
        ours = await _read(node, Draft(amount=amount, timestamp=int(time.time())).text())
        assert isinstance(ours, bolt11.Bolt11), amount
