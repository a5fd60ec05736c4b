"""What a node does not come back from: a peer that is gone for good, an old copy of its database, another identity.

On a stack of its own, whose channels end here one after the other; so the order of the tests is that of the file. Books
and nodes cannot agree at the end, because nothing books a channel's end: that is a case of the reconciliation. What
holds all the same is that the books keep their rules, and that each payment ends once.
"""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local import services
from infra.local.home import BANK, NODES
from infra.local.network import Network
from infra.local.outside import HoldInvoice, Outside, outside, sync_network
from infra.local.proof import prove
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, enter_bank, eventually
from tests.helpers.held_payment import held_payment, node_of, node_says, waits_for
from tests.helpers.reconciliation import cases, explain, reconcile

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

AMOUNT_MSAT = 50_000_000
FUNDS_MSAT = 60_000_000
PATIENCE_S = 180
_RESTART_EVERY = 20
DATABASE = Path("graph/regtest/channel.db")


@pytest.fixture(scope="module")
def broken_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("broken") / "home", apis=1, workers=1) as running:
        yield running


@pytest_asyncio.fixture
async def broken(broken_stack: Stack) -> AsyncIterator[Bank]:
    """A bank that loses its nodes; the books keep their rules."""
    async with enter_bank(broken_stack) as bank:
        yield bank
        assert (await prove(bank.stack)).broken_rules == []


@pytest_asyncio.fixture(scope="module")
async def savings(broken_stack: Stack) -> AsyncIterator[Account]:
    """Money for every test, from before any node was broken: an old copy of a node tells of no receipt at once."""
    async with enter_bank(broken_stack) as bank:
        yield await bank.open_account(funds_msat=4 * FUNDS_MSAT)


@pytest_asyncio.fixture
async def payee(broken_stack: Stack) -> AsyncIterator[Outside]:
    async with outside(broken_stack, "outside-2") as node:
        yield node


async def test_the_first_receipts_of_all_are_credited_though_nobody_listened(broken: Bank, payee: Outside) -> None:
    """No node has ever been paid, so there is no place from which its stream could go on."""
    alice = await broken.open_account()
    assert await broken.database.fetchval("SELECT max(settle_index) FROM bank.nodes") == 0
    invoices = [await alice.invoice(1_000_000 + number) for number in range(2)]
    await asyncio.to_thread(broken.stack.hold, "worker-1")
    try:
        for invoice in invoices:
            await payee.pay(invoice["bolt11"])
    finally:
        await asyncio.to_thread(broken.stack.release, "worker-1")
    for invoice in invoices:
        await broken.credited(alice, invoice["id"])
    assert (await alice.wallet())["available_msat"] == 2_000_001
    assert (await prove(broken.stack)).holds


def _network(stack: Stack, *names: str) -> Network:
    return Network(stack.home, stack.bitcoin(), [services.node(stack.home, name) for name in names])


async def _mine(stack: Stack, blocks: int, *names: str) -> None:
    """Until these have seen it; the others may be gone."""
    await asyncio.to_thread(stack.mine, blocks)
    async with _network(stack, *names) as network:
        await network.synced()


async def _mend(stack: Stack) -> None:
    """Open the channels anew that an earlier test has cost; nobody books that. What is swept of them needs blocks."""
    async with _network(stack, *NODES) as network:
        preparing = asyncio.create_task(network.prepare())
        while not preparing.done():
            await asyncio.to_thread(stack.mine, 1)
            await asyncio.wait({preparing}, timeout=1)
        await preparing


async def _held(broken: Bank, payee: Outside, savings: Account) -> tuple[Account, str, HoldInvoice, str]:
    """A user, her payment in flight, the payee's invoice, and the node that has sent it."""
    await _mend(broken.stack)
    alice = await broken.open_account()
    saved = await savings.pay(f"wallet:{alice.wallet_id}", amount_msat=FUNDS_MSAT)
    assert saved.json()["status"] == "settled", saved.text
    payment_id, held = await held_payment(alice, payee, AMOUNT_MSAT)
    return alice, payment_id, held, await node_of(broken, payment_id)


async def test_a_middle_node_that_never_returns_until_its_channel_is_closed_on_chain(
    broken: Bank, payee: Outside, savings: Account
) -> None:
    alice, payment_id, held, node = await _held(broken, payee, savings)
    said = await node_says(broken.stack, node, held.payment_hash)
    assert said is not None
    time_lock = said.htlcs[0].route.total_time_lock
    await reconcile(broken)
    await asyncio.to_thread(broken.stack.hold, "outside-1")
    try:
        height = await asyncio.to_thread(broken.stack.bitcoin().call, "getblockcount")
        await _mine(broken.stack, time_lock - height, node)
        assert (await alice.payment(payment_id))["status"] == "pending"
        assert (await alice.wallet())["held_msat"] > AMOUNT_MSAT

        async def ended() -> Json | None:
            await _mine(broken.stack, 1, node)
            payment = await alice.payment(payment_id)
            return payment if payment["status"] != "pending" else None

        failed = await eventually(ended, "the HTLC to be taken back on chain", limit_s=PATIENCE_S)
    finally:
        await asyncio.to_thread(broken.stack.release, "outside-1")
    assert failed["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == FUNDS_MSAT
    assert await _endings(broken, held) == ["void"]
    await sync_network(broken.stack)
    (closed,) = await _closed(broken)
    assert closed["account"] == f"asset:lnd:{node}:channels"
    await explain(broken, closed, "its peer was gone")


async def _endings(bank: Bank, held: HoldInvoice) -> list[str]:
    """How the holds of this hash were resolved."""
    rows = await bank.database.fetch(
        "SELECT phase FROM ledger.transfers WHERE starts_with(external_ref, $1) AND phase <> 'hold'",
        f"ln:{held.payment_hash.hex()}:",
    )
    return [row["phase"] for row in rows]


async def _closed(bank: Bank) -> list[Json]:
    """The cases of channels that have ended, once there is one."""

    async def found() -> list[Json] | None:
        await reconcile(bank)
        return [
            each for each in await cases(bank) if (each["kind"], each["status"]) == ("channel_closed", "open")
        ] or None

    return await eventually(found, "the closed channel to be a case", limit_s=PATIENCE_S)


async def _change_data(stack: Stack, name: str, change: Callable[[Path], None]) -> None:
    """The node is down while its data are changed; then it is back."""
    await asyncio.to_thread(stack.hold, name)
    try:
        await asyncio.to_thread(change, stack.home.folder / name / "data")
    finally:
        await asyncio.to_thread(stack.release, name)


def _copy_to(old: Path) -> Callable[[Path], None]:
    def copy(data: Path) -> None:
        shutil.copy(data / DATABASE, old)

    return copy


def _copy_back(old: Path) -> Callable[[Path], None]:
    def copy(data: Path) -> None:
        shutil.copy(old, data / DATABASE)

    return copy


def _forget_who_it_is(data: Path) -> None:
    """A new wallet and no channels, at the same address and with the same macaroons."""
    shutil.rmtree(data / "graph")
    for name in ("wallet.db", "channel.backup"):
        (data / "chain/bitcoin/regtest" / name).unlink()


async def _meet(stack: Stack) -> None:
    """Connect all peers, as an operator would: a node that was away waits ever longer between its own tries."""
    async with _network(stack, *NODES) as network:
        await network.connect_peers()


async def _decide(bank: Bank, payment_id: str, node: str, **how: str | int) -> Json:
    """Two operators end it; the first word is the administrator's.

    Its node's channels are still being closed. An LND whose sweep comes into a block before it has looked again waits
    for that sweep until it is restarted. So blocks come when all have seen the last one, and now and then it is.
    """
    second = await bank.open_account()
    made = await bank.http.post(
        f"/v1/accounts/{second.id}/api-keys", json={"name": "finance", "scopes": ["finance"]}, headers=bank.admin
    )
    proposed = await bank.http.post(
        "/v1/admin/decisions", json={"payment_id": payment_id, "reason": "looked", **how}, headers=bank.admin
    )
    assert proposed.status_code == 201, proposed.text
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    refusals = itertools.count(1)

    async def done() -> Json | None:
        path = f"/v1/admin/decisions/{proposed.json()['id']}/approve"
        answer = await bank.http.post(path, json={"note": "looked, too"}, headers=headers)
        if answer.status_code == 409 and answer.json()["code"] == "payment_not_stuck":
            if next(refusals) % _RESTART_EVERY == 0:
                await _change_data(bank.stack, node, lambda _data: None)
            await _mine(bank.stack, 1, *NODES)
            await _meet(bank.stack)
            return None
        assert answer.status_code == 200, answer.text
        decided: Json = answer.json()
        return decided

    return await eventually(done, "the decision to be carried out", limit_s=PATIENCE_S)


async def test_an_old_copy_of_its_database_gives_nothing_back_until_two_operators_settle(
    broken: Bank, payee: Outside, savings: Account, tmp_path: Path
) -> None:
    """The payee is paid meanwhile, out of a channel that the node's peer has to close."""
    await _mend(broken.stack)
    for name in BANK:
        await _change_data(broken.stack, name, _copy_to(tmp_path / name))
    await sync_network(broken.stack)
    alice, payment_id, held, node = await _held(broken, payee, savings)
    await _change_data(broken.stack, node, _copy_back(tmp_path / node))
    stuck = await waits_for(alice, payment_id, "node_forgot", limit_s=PATIENCE_S)
    assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
    assert (await alice.wallet())["held_msat"] > AMOUNT_MSAT
    await payee.settle(held)

    decided = await _decide(broken, payment_id, node, end="settled", preimage=held.preimage.hex(), fee_msat=1_000)
    assert decided["status"] == "done"
    paid = await alice.final(payment_id)
    assert (paid["status"], paid["fee_msat"]) == ("settled", 1_000)
    assert (await alice.wallet())["available_msat"] == FUNDS_MSAT - AMOUNT_MSAT - 1_000
    assert await _endings(broken, held) == ["settle"]


async def test_another_identity_at_the_address_gives_nothing_back_until_two_operators_do(
    broken: Bank, payee: Outside, savings: Account
) -> None:
    alice, payment_id, held, node = await _held(broken, payee, savings)
    await _change_data(broken.stack, node, _forget_who_it_is)
    stuck = await waits_for(alice, payment_id, "node_forgot", "node_replaced", limit_s=PATIENCE_S)
    assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
    assert (await alice.wallet())["held_msat"] > AMOUNT_MSAT
    await payee.cancel(held.payment_hash)

    await _decide(broken, payment_id, node, end="failed")
    failed = await alice.final(payment_id)
    assert (failed["status"], failed["failure"]["code"]) == ("failed", "released_by_operators")
    assert (await alice.wallet())["available_msat"] == FUNDS_MSAT
    assert await _endings(broken, held) == ["void"]
    assert (await alice.pay(held.bolt11)).json()["code"] == "invoice_unpayable"
    async with outside(broken.stack, node) as stranger:
        assert not (await stranger.stubs.lightning.ListChannels(ln.ListChannelsRequest())).channels
