"""Who is paid over Lightning, two hops away, and the two that pay him: our engine, and a node without one.

    lnd-1, ours ─┬─► outside-1 ──► outside-2, the payee
    bare        ─┘

The bare node is an LND as ours are, with the same flags and the same channel. It does not belong to the bank, because
its payments are in no books, and our pumps would follow it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from engine.clients.bolt11 import decode
from engine.clients.lnd.client import LndNode, NodePaymentStatus
from engine.clients.lnd.refusal import NotBegun, SendRefused
from engine.domain.errors import EngineError
from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from engine.settings import NodeSettings
from infra.bench.contest import Wrong, eventually
from infra.bench.http import Wire
from infra.bench.people import EACH_MSAT, People, Person, expect, fund
from infra.bench.servers import OURS, Servers, free_port
from infra.local import services
from infra.local.home import NODES
from infra.local.lightning import Node, active, connect
from infra.local.network import CHANNELS, Channel, Network
from infra.local.outside import HoldInvoice, Outside, PaymentFailed

AMOUNT_MSAT = Msat(500_000)
"""More than dust, so that each payment is an output of the commitments, with a signature of its own."""
MAX_FEE_MSAT = Msat(10_000)
BARE = "bare"
BARE_CHANNEL = Channel(BARE, "outside-1", 16_000_000, 6_000_000)
LEAST_MSAT = 4_000_000_000
"""With less in its channel the bare node is paid back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the payee asks for."""

    bolt11: str
    payment_hash: PaymentHash


class Payee:
    """outside-2, and what it must have."""

    def __init__(self, node: Outside) -> None:
        self.node = node
        self._stock: list[Asked] = []
        self._expected_msat = 0

    async def expect(self, invoices: int) -> None:
        """Have so many invoices ready, and count what comes from now on."""
        while len(self._stock) < invoices:
            self._stock.append(await self._make())
        self._expected_msat = await self.node.balance_msat()

    async def ask(self) -> Asked:
        """An invoice; a new one when none is left."""
        return self._stock.pop() if self._stock else await self._make()

    async def _make(self) -> Asked:
        text = await self.node.invoice(AMOUNT_MSAT, memo="bench")
        return Asked(text, decode(text, network="regtest").payment_hash)

    async def hold(self) -> tuple[Asked, HoldInvoice]:
        """An invoice whose payment hangs until the payee settles or cancels it."""
        held = await self.node.hold_invoice(AMOUNT_MSAT, memo="bench")
        return Asked(held.bolt11, PaymentHash(held.payment_hash.hex())), held

    async def settle_after(self, held: HoldInvoice, delay_s: float) -> None:
        """Settle it `delay_s` seconds after its payment has come."""
        await self.node.accepted(held)
        await asyncio.sleep(delay_s)
        await self.node.settle(held)

    def paid(self) -> None:
        """A payment was answered as settled."""
        self._expected_msat += AMOUNT_MSAT

    async def check(self) -> None:
        """Raises Wrong unless the payee has what the answers add up to, to the millisatoshi."""

        async def holds() -> bool:
            return await self.node.balance_msat() == self._expected_msat

        await eventually(holds, f"the payee to have exactly {self._expected_msat} msat", limit_s=10)


class Payer(ABC):
    """One that pays what the payee asks for."""

    name: str
    components: Sequence[str]

    @abstractmethod
    async def have_money(self) -> None:
        """Be paid back, if there is not enough money for a turn."""

    @abstractmethod
    async def pay(self, client: int, asked: Asked) -> None:
        """To its end. Raises Wrong when it is not settled."""

    @abstractmethod
    async def check(self) -> None:
        """Raises Wrong unless its own books are right."""


class Engine(Payer):
    """Over our API."""

    name = "payment over Lightning"
    components = OURS

    def __init__(self, people: People, payee: Payee, port: int) -> None:
        self._people, self._payee, self._port = people, payee, port
        self._wires: dict[int, Wire] = {}

    async def have_money(self) -> None:
        for person in self._people.everybody:
            missing_msat = EACH_MSAT // 2 - self._people.owned_msat[person.number]
            if missing_msat > 0:
                await fund(self._wire(0), self._people, person, missing_msat + EACH_MSAT // 2, self._payee.node)

    async def pay(self, client: int, asked: Asked) -> None:
        payer = self._people.anybody()
        paid = expect(await self.begin(client, payer, asked))
        if paid["status"] != "settled":
            raise Wrong(f"a payment is {paid['status']}: {paid}")
        self._people.spent(payer.number, AMOUNT_MSAT + paid["fee_msat"])

    async def begin(self, client: int, payer: Person, asked: Asked) -> tuple[int, object]:
        """Ask for it, and wait half a minute for its end."""
        body = {"wallet_id": payer.wallet_id, "destination": asked.bolt11, "max_fee_msat": MAX_FEE_MSAT}
        headers = {"Authorization": f"Bearer {payer.key}", "Idempotency_Key": self._people.new_key()}
        return await self._wire(client).ask("POST", "/v1/payments", body, Prefer="wait=30", **headers)

    async def fails(self, payer: Person, answer: tuple[int, object]) -> None:
        """Wait until the payment that was answered so has failed."""
        path = f"/v1/payments/{expect(answer, answer[0])['id']}"

        async def failed() -> bool:
            shown = expect(await self._wire(0).ask("GET", path, Authorization=f"Bearer {payer.key}"), 200)
            return bool(shown["status"] == "failed")

        await eventually(failed, "a payment that the payee sent back to fail")

    async def check(self) -> None:
        await self._people.check()

    def _wire(self, client: int) -> Wire:
        return self._wires.setdefault(client, Wire(self._port))


class BareNode(Payer):
    """SendPaymentV2, called as our worker calls it, and nothing else."""

    name = "SendPaymentV2 alone"
    components = (BARE,)

    def __init__(self, node: LndNode, own: Outside, payee: Payee) -> None:
        self._node, self._own, self._payee = node, own, payee

    async def have_money(self) -> None:
        missing_msat = LEAST_MSAT - await self._own.balance_msat()
        if missing_msat > 0:
            invoice = await self._own.invoice(missing_msat + LEAST_MSAT // 2)
            try:
                await self._payee.node.pay(invoice)
            except PaymentFailed as failed:
                raise Wrong(f"the payee cannot pay the bare node back: {failed}") from failed

    async def pay(self, client: int, asked: Asked) -> None:  # noqa: ARG002 - it has one connection for all
        updates = self._node.send_payment(
            bolt11=asked.bolt11,
            payment_hash=asked.payment_hash,
            amount_msat=None,
            max_fee_msat=MAX_FEE_MSAT,
            known_payment_index=0,
            keysend=None,
        )
        last = None
        try:
            async for payment in updates:
                last = payment
        except (SendRefused, NotBegun, EngineError) as error:
            raise Wrong(f"the bare node cannot pay: {error!r}") from error
        if last is None or last.status is not NodePaymentStatus.SUCCEEDED:
            raise Wrong(f"the bare node's payment ended as {last}")

    async def check(self) -> None:
        """Nothing to check: the payee's balance shows it."""


@asynccontextmanager
async def bare_node(servers: Servers) -> AsyncIterator[tuple[Node, Outside]]:
    """Start it, with money and a channel, until the block ends. Raises Wrong, or Failed by the network."""
    home, port = servers.stack.home, free_port()
    node = Node(BARE, f"127.0.0.1:{port}", home.certificate(BARE), home.macaroon(BARE, "admin"))
    await services.freshen_tip(home)
    process = await servers.spawn(BARE, services.lnd_command(home, servers.tools, BARE, port, free_port()), {})
    try:
        await eventually(lambda: active(node), "the bare node to serve")
        nodes = [*(services.node(home, name) for name in NODES), node]
        async with Network(home, servers.stack.bitcoin(), nodes, (*CHANNELS, BARE_CHANNEL)) as network:
            await network.prepare()
        async with connect(node) as stubs:
            yield node, Outside(stubs)
    finally:
        await servers.end(BARE, process)


def settings_of(node: Node) -> NodeSettings:
    """As our clients want them."""
    return NodeSettings(address=node.address, tls_cert=node.certificate, macaroon=node.macaroon)
