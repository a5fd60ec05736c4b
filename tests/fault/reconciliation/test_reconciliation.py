"""What reconciliation must find, planted on a stack of its own: damage in the midst of payments, and channels that end.

A thousand payments go in, out and inside. While they run nothing is found; then four things are done that must never
happen, payments go on, and those four are found and nothing else. Afterwards the closed channel is followed to its end.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local.outside import HoldInvoice, Outside, outside, sync_network
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, enter_bank, eventually
from tests.helpers.held_payment import accepted
from tests.helpers.reconciliation import cases, explain, reconcile, strand

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

T = TypeVar("T")
Pay = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def damaged_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("damaged") / "home", apis=2, workers=2) as running:
        yield running


@pytest_asyncio.fixture
async def damaged(damaged_stack: Stack) -> AsyncIterator[Bank]:
    """A bank whose nodes lose channels and whose books are altered."""
    async with enter_bank(damaged_stack) as bank:
        yield bank


@dataclass
class Traffic:
    """Payments of every kind between two users and the world outside."""

    alice: Account
    bob: Account
    shop: Outside

    async def by_name(self) -> None:
        await self._settled(self.alice, f"@{self.bob.username}", amount_msat=2_000)

    async def by_invoice(self) -> None:
        await self._settled(self.alice, (await _patiently(lambda: self.bob.invoice(3_000)))["bolt11"])

    async def out(self) -> None:
        await self._settled(self.alice, await self.shop.invoice(50_000))

    async def comes_in(self) -> None:
        invoice = await _patiently(lambda: self.alice.invoice(60_000))
        await self.shop.pay(invoice["bolt11"])
        await self.alice.bank.credited(self.alice, invoice["id"])

    async def failing(self) -> None:
        paid = await self._pay(self.alice, await self.shop.invoice(4_000_000), max_fee_msat=0)
        assert paid["status"] == "failed", paid

    async def _settled(self, payer: Account, destination: str, **body: Any) -> None:
        paid = await self._pay(payer, destination, **body)
        assert paid["status"] == "settled", paid

    async def _pay(self, payer: Account, destination: str, **body: Any) -> Json:
        key = secrets.token_hex(8)
        answer = await _patiently(lambda: payer.pay(destination, key=key, wait_s=60, **body))
        paid: Json = answer.json()
        return paid

    async def run(self, *, inside: int, outward: int, inward: int = 0, failing: int = 0) -> None:
        """So many of each; a few at a time, as the machine can bear."""
        lanes: list[tuple[Sequence[Pay], int]] = [
            ([self.by_name, self.by_invoice] * (inside // 2), 8),
            ([self.out] * outward + [self.failing] * failing, 3),
            ([self.comes_in] * inward, 3),
        ]
        await asyncio.gather(*(_in_lane(pays, width) for pays, width in lanes))


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """An API that closes an idle connection in the moment of a request is asked again, as every client must."""
    while True:
        try:
            return await call()
        except httpx.TransportError:
            continue


async def _in_lane(pays: Sequence[Pay], width: int) -> None:
    left = iter(pays)

    async def one() -> None:
        for pay in left:
            await pay()

    await asyncio.gather(*(one() for _ in range(width)))


async def reconcile_while(bank: Bank, paying: "asyncio.Task[None]") -> list[Json]:
    """Runs one after the other until the payments have ended."""
    runs = []
    while not paying.done():
        runs.append(await reconcile(bank))
    await paying
    return runs


async def hold_payments(bank: Bank, alice: Account, shop: Outside, count: int) -> list[tuple[Json, HoldInvoice]]:
    """Payments that outside-2 keeps in flight."""
    held = [await shop.hold_invoice(70_000 + n) for n in range(count)]
    pending = [(await alice.pay(each.bolt11, wait_s=0)).json() for each in held]
    for each in held:
        await accepted(shop, each.payment_hash)
    return list(zip(pending, held, strict=True))


async def close_channel(node: Outside, *, force: bool) -> str:
    """Close the channel that this node opened; its channel point. The closing transaction is not mined yet."""
    listed = (await node.stubs.lightning.ListChannels(ln.ListChannelsRequest())).channels
    (channel,) = [each for each in listed if each.initiator]
    txid, index = channel.channel_point.split(":")
    request = ln.CloseChannelRequest(
        channel_point=ln.ChannelPoint(funding_txid_str=txid, output_index=int(index)),
        force=force,
        sat_per_vbyte=0 if force else 2,
        max_fee_per_vbyte=0 if force else 100,
    )
    async for _ in node.stubs.lightning.CloseChannel(request):
        return str(channel.channel_point)
    raise AssertionError("the node ended the answer before it closed the channel")


async def alter_an_entry(bank: Bank, wallet_id: str) -> int:
    """As the owner of the tables: one msat more for the user. Gives the transfer."""
    async with bank.database.acquire() as conn, conn.transaction():
        await conn.execute("ALTER TABLE ledger.entries DISABLE TRIGGER append_only")
        transfer_id = await conn.fetchval(
            """UPDATE ledger.entries SET amount = amount - 1
                WHERE account_id = (SELECT id FROM ledger.accounts WHERE code = $1) RETURNING transfer_id""",
            f"liab:user:{wallet_id}",
        )
        await conn.execute("ALTER TABLE ledger.entries ENABLE TRIGGER append_only")
    return int(transfer_id)


async def hang(bank: Bank, pending: Json) -> None:
    """A payment that hangs at the payee for two hours, and whose workflow has died."""
    await bank.database.execute(
        "UPDATE bank.payments SET created_at = created_at - interval '2 hours' WHERE id = $1", pending["id"]
    )
    await strand(bank, pending["workflow_id"])


async def stage_of(bank: Bank, point: str, wanted: str) -> Json:
    """The run that sees the end of the channel so far."""

    async def seen() -> Json | None:
        run = await reconcile(bank)
        found = [each for each in run["findings"] if (each["kind"], each["subject"]) == ("channel_closed", point)]
        return run if found and found[0]["suspects"][0]["kind"] == wanted else None

    return await eventually(seen, f"the channel to be {wanted}")


async def mine(bank: Bank, blocks: int) -> None:
    await asyncio.to_thread(bank.stack.mine, blocks)
    await sync_network(bank.stack)


def subjects(run: Json, *kinds: str) -> set[tuple[str, str]]:
    return {(each["kind"], each["subject"]) for each in run["findings"] if each["kind"] in kinds}


async def test_each_planted_difference_is_found_and_no_other_among_a_thousand_payments(damaged: Bank) -> None:
    alice = await damaged.open_account(funds_msat=90_000_000)
    bob, carol = await damaged.open_account(username=f"b_{secrets.token_hex(4)}"), await damaged.open_account()
    await alice.pay(f"wallet:{carol.wallet_id}", amount_msat=9_000)
    async with outside(damaged.stack, "outside-2") as shop:
        traffic = Traffic(alice, bob, shop)
        held = await hold_payments(damaged, alice, shop, 5)
        paying = asyncio.create_task(traffic.run(inside=640, outward=60, inward=75, failing=10))
        runs = await reconcile_while(damaged, paying)
        assert {run["status"] for run in runs} <= {"clean", "incomplete"}, [run["findings"] for run in runs]
        assert "clean" in {run["status"] for run in runs}
        for _, invoice in held[1:]:
            await shop.settle(invoice)
        for pending, _ in held[1:]:
            assert (await alice.final(pending["id"]))["status"] == "settled"
        assert (await reconcile(damaged))["status"] == "clean"

        async with outside(damaged.stack, "lnd-1") as by_hand, outside(damaged.stack, "lnd-2") as node:
            paid = await by_hand.pay(await shop.invoice(7_654_321))
            point = await close_channel(node, force=True)
        transfer = await alter_an_entry(damaged, carol.wallet_id)
        await hang(damaged, held[0][0])
        paying = asyncio.create_task(traffic.run(inside=180, outward=30))
        runs = await reconcile_while(damaged, paying)
        last = await stage_of(damaged, point, "waiting_close")
        await shop.settle(held[0][1])

    carols = f"account liab:user:{carol.wallet_id}"
    planted = {
        ("payment_not_in_books", paid.payment_hash),
        ("payment_orphaned", held[0][1].payment_hash.hex()),
        ("channel_closed", point),
        ("broken_rule", f"rule 1 balanced: transfer {transfer}"),
        ("broken_rule", f"rule 2 balances: {carols}"),
        ("broken_rule", f"rule 2 history: {carols}"),
        ("broken_rule", "rule 6 equation: BTC"),
    }
    assert {(each["kind"], each["subject"]) for each in await cases(damaged)} == planted
    assert subjects(last, *(kind for kind, _ in planted)) == planted
    (case,) = [each for each in await cases(damaged) if each["kind"] == "channel_closed"]
    assert case["account"] == "asset:lnd:lnd-2:channels"
    assert case["suspects"][0]["ref"] == point
    assert {each["kind"] for run in runs for each in run["findings"]} <= {
        *(kind for kind, _ in planted),
        "channel_part",
        "place_moving",
    }
    for opened in await cases(damaged):
        await explain(damaged, opened, "planted")


async def test_an_explained_channel_stays_explained_to_its_last_sweep(damaged: Bank) -> None:
    """Forced by lnd-2, with a time lock; beside it lnd-1 closes one together with its peer."""
    known = {each["id"] for each in await cases(damaged)}
    (closed,) = [each for each in await cases(damaged) if each["kind"] == "channel_closed"]
    point = closed["subject"]
    await mine(damaged, 6)
    locked = await stage_of(damaged, point, "pending_force_close")
    assert locked["status"] == "explained", locked["findings"]

    async with outside(damaged.stack, "lnd-2") as node:
        pending = await node.stubs.lightning.PendingChannels(ln.PendingChannelsRequest())
        await mine(damaged, pending.pending_force_closing_channels[0].blocks_til_maturity)

        async def swept() -> bool | None:
            await mine(damaged, 1)
            ended = await node.stubs.lightning.ClosedChannels(ln.ClosedChannelsRequest())
            return True if ended.channels else None

        await eventually(swept, "the time-locked output to be swept")
    ended = await stage_of(damaged, point, "local_force_close")
    assert ended["status"] == "explained", ended["findings"]
    came = {each["account"]: each["amount_msat"] for each in ended["findings"] if each["subject"] == point}
    assert came["asset:lnd:lnd-2:onchain"] < 0
    assert 0 < sum(came.values()) < 10_000_000, "what the miners had"

    async with outside(damaged.stack, "lnd-1") as node:
        together = await close_channel(node, force=False)
    await stage_of(damaged, together, "waiting_close")
    await mine(damaged, 6)
    last = await stage_of(damaged, together, "cooperative_close")
    assert subjects(last, "difference") == set()
    fresh = [each for each in await cases(damaged) if each["id"] not in known]
    assert [(each["kind"], each["subject"]) for each in fresh] == [("channel_closed", together)]
    await explain(damaged, fresh[0], "closed together")
    assert (await reconcile(damaged))["status"] == "explained"
