"""Over Lightning: payments two hops away, slow payees, hanging ones, and the making of invoices.

Each is compared with the same call to an LND without an engine. Invoices that are paid are made before the turn.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from engine.clients.lnd.client import LndNode
from engine.clients.lnd.invoice import InvoiceNode
from engine.domain.ids import NodeName
from infra.bench.contest import Begin, Contest, Contestant, Work, Wrong, keep_asking
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.pairs import BATCHED, BY_NAME, ByName
from infra.bench.payee import AMOUNT_MSAT, BARE, BareNode, Engine, Payee, Payer, bare_node, settings_of
from infra.bench.people import People, expect
from infra.bench.servers import OURS, Servers
from infra.local import environment
from infra.local.outside import HoldInvoice, Outside, outside

CLIENTS = (1, 8, 32)
INVOICE_CLIENTS = (1, 16, 64)
LOW_LOAD = (2,)
SLOW, SLOW_S = 16, 1
HANGING = 6
MOST_PER_CLIENT, MOST_PER_S = 20, 200
"""Payments a second for which invoices are made in advance, of one client and of all."""
INVOICES, BARE_INVOICES, READINGS = "POST /v1/invoices", "AddInvoice alone", "DecodePayReq alone"


class Quick(Contestant):
    """Payments that the payee takes at once."""

    def __init__(self, payer: Payer, payee: Payee) -> None:
        self.name, self.components = payer.name, payer.components
        self._payer, self._payee = payer, payee

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        await self._payer.have_money()
        await self._payee.expect(clients + round(seconds * min(MOST_PER_CLIENT * clients, MOST_PER_S)))
        await asyncio.gather(*(self._pay(number) for number in range(clients)))
        begin()
        return await keep_asking(self._pay, clients, seconds)

    async def _pay(self, client: int) -> None:
        await self._payer.pay(client, await self._payee.ask())
        self._payee.paid()

    async def check(self) -> None:
        await self._payee.check()
        await self._payer.check()


class Slow(Contestant):
    """As many payments at once as there are clients, to a payee who takes a second for each.

    Its latency is that of all of them together.
    """

    def __init__(self, payer: Payer, payee: Payee) -> None:
        self.name, self.components = f"{payer.name}, slow payee", payer.components
        self._payer, self._payee = payer, payee

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        await self._payer.have_money()
        await self._payee.expect(0)
        asked, held = zip(*[await self._payee.hold() for _ in range(clients)], strict=True)
        begin()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._payee.settle_after(held[number], SLOW_S))
                group.create_task(self._payer.pay(number, asked[number]))
        elapsed_s = time.monotonic() - began
        for _ in range(clients):
            self._payee.paid()
        return Work(clients, elapsed_s, 1000 * elapsed_s)

    async def check(self) -> None:
        await self._payee.check()
        await self._payer.check()


class WhileHanging(Contestant):
    """Another contestant's turn, while the payee holds payments of ours and their callers wait for the answer."""

    def __init__(self, bystander: Contestant, engine: Engine, payee: Payee, people: People) -> None:
        self.name, self.components = _beside_hanging(bystander.name), bystander.components
        self._bystander, self._engine, self._payee, self._people = bystander, engine, payee, people
        self._held: list[HoldInvoice] = []
        self._waiting: list[asyncio.Task[tuple[int, object]]] = []

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        for number in range(HANGING):
            asked, held = await self._payee.hold()
            payer = self._people.everybody[number]
            self._waiting.append(asyncio.create_task(self._engine.begin(-1 - number, payer, asked)))
            self._held.append(held)
        async with asyncio.timeout(30):
            await asyncio.gather(*(self._payee.node.accepted(held) for held in self._held))
        return await self._bystander.work(clients, seconds, begin)

    async def rest(self) -> None:
        """The payee sends all of them back, and each fails."""
        held, waiting = self._held, self._waiting
        self._held, self._waiting = [], []
        for each in held:
            await self._payee.node.cancel(each.payment_hash)
        for number, answer in enumerate(await asyncio.gather(*waiting)):
            await self._engine.fails(self._people.everybody[number], answer)

    async def check(self) -> None:
        await self._bystander.check()


class Invoices(Contestant):
    """Invoices of our users."""

    name, components = INVOICES, OURS

    def __init__(self, servers: Servers, people: People) -> None:
        self._servers, self._people = servers, people
        self._port = servers.stack.home.ports()["api-1"]
        self._wires: dict[int, Wire] = {}
        self._made: int | None = None

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self._made = await self._count()
        await asyncio.gather(*(self._make(number) for number in range(clients)))
        begin()
        return await keep_asking(self._make, clients, seconds)

    async def _make(self, client: int) -> None:
        wire, payee = self._wires.setdefault(client, Wire(self._port)), self._people.anybody()
        body = {"wallet_id": payee.wallet_id, "amount_msat": AMOUNT_MSAT, "memo": "bench"}
        expect(await wire.ask("POST", "/v1/invoices", body, Authorization=f"Bearer {payee.key}"))
        self._made = (self._made or 0) + 1

    async def check(self) -> None:
        if (found := await self._count()) != self._made:
            raise Wrong(f"the bank has {found} invoices and must have {self._made}")

    async def _count(self) -> int:
        connection = await asyncpg.connect(self._servers.dsn(environment.DATABASE))
        try:
            count: int = await connection.fetchval("SELECT count(*) FROM bank.invoices")
        finally:
            await connection.close()
        return count


class BareInvoices(Contestant):
    """AddInvoice, called as our API calls it."""

    name, components = BARE_INVOICES, (BARE,)

    def __init__(self, node: InvoiceNode, own: Outside) -> None:
        self._node, self._own = node, own
        self._made = 0

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self._made = await self._own.last_invoice_index()
        await asyncio.gather(*(self._make(number) for number in range(clients)))
        begin()
        return await keep_asking(self._make, clients, seconds)

    async def _make(self, _client: int) -> None:
        preimage = secrets.token_bytes(32)
        await self._node.add_invoice(
            preimage=preimage, amount_msat=AMOUNT_MSAT, memo="bench", description_hash=None, expiry_s=3600
        )
        self._made += 1

    async def check(self) -> None:
        if (found := await self._own.last_invoice_index()) != self._made:
            raise Wrong(f"the bare node has {found} invoices and must have {self._made}")


class Readings(Contestant):
    """An invoice that a node reads, as ours does once before the money of a payment is held."""

    name, components = READINGS, (BARE,)

    def __init__(self, own: Outside) -> None:
        self._own = own
        self._asked = ""

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self._asked = await self._own.invoice(AMOUNT_MSAT)
        await asyncio.gather(*(self._read(number) for number in range(clients)))
        begin()
        return await keep_asking(self._read, clients, seconds)

    async def _read(self, _client: int) -> None:
        await self._own.read(self._asked)

    async def check(self) -> None:
        if (said := await self._own.read(self._asked)) != AMOUNT_MSAT:
            raise Wrong(f"the bare node reads {said} msat in an invoice over {AMOUNT_MSAT}")


@asynccontextmanager
async def contests(servers: Servers, people: People) -> AsyncIterator[Sequence[tuple[Contest, float, Sequence[int]]]]:
    """Each contest with the seconds of a turn and its numbers of clients; the bare node lives as long as the block."""
    async with bare_node(servers) as (node, own), outside(servers.stack) as payees_node:
        settings = settings_of(node)
        lnd, maker = LndNode(NodeName(BARE), settings), InvoiceNode(NodeName(BARE), settings)
        try:
            payee = Payee(payees_node)
            engine = Engine(people, payee, servers.stack.home.ports()["api-1"])
            bare = BareNode(lnd, own, payee)
            yield (
                (_payments(engine, bare, payee), 4, CLIENTS),
                (_slow(engine, bare, payee), 0, (SLOW,)),
                (_bystanders(servers, people, engine, payee), 6, LOW_LOAD),
                (_invoices(Invoices(servers, people), BareInvoices(maker, own), Readings(own)), 2, INVOICE_CLIENTS),
            )
        finally:
            await lnd.close()
            await maker.close()


def _payments(engine: Engine, bare: BareNode, payee: Payee) -> Contest:
    goals = [Goal(engine.name, bare.name, clients=clients) for clients in CLIENTS[:-1]]
    goals.append(Goal(engine.name, bare.name, at_least=0.5, clients=CLIENTS[-1]))
    goals.append(Goal(engine.name, bare.name, "p50 added", at_most=40, clients=1))
    return Contest("payments over two hops", "payments/s", [Quick(engine, payee), Quick(bare, payee)], goals)


def _slow(engine: Engine, bare: BareNode, payee: Payee) -> Contest:
    ours, beside = Slow(engine, payee), Slow(bare, payee)
    known = ("LNbits 1.6.2", "known: 16.6 s")
    goals = [Goal(ours.name, measure="p50", at_most=2000)]
    return Contest(f"{SLOW} payments at once, payee takes {SLOW_S} s", "payments/s", [ours, beside, known], goals)


def _bystanders(servers: Servers, people: People, engine: Engine, payee: Payee) -> Contest:
    by_name = ByName(BY_NAME + BATCHED, people, servers.stack.home.ports()["api-1"], OURS)
    alone = [by_name, Quick(engine, payee)]
    hanging = [WhileHanging(bystander, engine, payee, people) for bystander in alone]
    known = ("LNbits 1.6.2", "known: nobody for 29.9 s")
    goals = [Goal(_beside_hanging(one.name), one.name, "p99", at_most=1.5) for one in alone]
    return Contest(f"bystanders of {HANGING} hanging payments", "payments/s", [*alone, *hanging, known], goals)


def _beside_hanging(name: str) -> str:
    return f"{name}, {HANGING} hang"


def _invoices(ours: Invoices, bare: BareInvoices, readings: Readings) -> Contest:
    return Contest("invoices", "invoices/s", [ours, bare, readings], [Goal(ours.name, bare.name)])
