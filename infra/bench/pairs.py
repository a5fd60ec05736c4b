"""What an app does, over HTTP: "create an invoice, another user pays it", and "pay a user by name".

Each client keeps one connection and does one thing after the other, with two random users each time. Our pairs run
twice where the API can batch: with the setting off and on, in two API processes side by side.
"""

import asyncio
import random
from abc import abstractmethod
from collections.abc import Sequence

from infra.bench.contest import NOT_BUILT, Begin, Contest, Contestant, Work, keep_asking
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.people import People, expect, pay
from infra.bench.servers import OURS

TITLE = "payments over HTTP"
AMOUNT_MSAT = 1000
PAIR, BY_NAME, LNBITS = "pair", "@username", "LNbits pair"
BATCHED = ", batching"
PLAIN_API = "plain api"


class OverHttp(Contestant):
    """Asks one server; a connection per client, kept from turn to turn."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wires: dict[int, Wire] = {}

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        for number in range(len(self._wires), clients):
            self._wires[number] = Wire(self._port)
        await asyncio.gather(*(self.operation(number) for number in range(clients)))
        begin()
        return await keep_asking(self.operation, clients, seconds)

    @abstractmethod
    async def operation(self, client: int) -> None:
        """One operation that counts, over this client's connection."""


class _AtOurs(OverHttp):
    """Asks one API process of ours."""

    def __init__(self, name: str, people: People, port: int, components: Sequence[str]) -> None:
        super().__init__(port)
        self.name, self.components = name, components
        self._people = people

    async def check(self) -> None:
        await self._people.check()


class Pairs(_AtOurs):
    """An invoice by one user, paid by another."""

    async def operation(self, client: int) -> None:
        wire, (payer, payee) = self._wires[client], random.sample(self._people.everybody, 2)
        body = {"wallet_id": payee.wallet_id, "amount_msat": AMOUNT_MSAT}
        invoice = expect(await wire.ask("POST", "/v1/invoices", body, Authorization=f"Bearer {payee.key}"))
        await pay(wire, self._people, payer, invoice["bolt11"], payee.number, amount_msat=AMOUNT_MSAT, in_invoice=True)


class ByName(_AtOurs):
    """A payment to a user's name."""

    async def operation(self, client: int) -> None:
        payer, payee = random.sample(self._people.everybody, 2)
        destination = f"@{payee.username}"
        await pay(self._wires[client], self._people, payer, destination, payee.number, amount_msat=AMOUNT_MSAT)


def contest(people: People, plain: int, batching: int | None, lnbits: Contestant | tuple[str, str]) -> Contest:
    """`plain` and `batching` are ports of API processes; none: this API cannot batch."""
    ours: list[Contestant | tuple[str, str]]
    if batching is None:
        ours = [Pairs(PAIR, people, plain, OURS), ByName(BY_NAME, people, plain, OURS)]
        ours += [(PAIR + BATCHED, NOT_BUILT), (BY_NAME + BATCHED, NOT_BUILT)]
    else:
        ours = [Pairs(PAIR, people, plain, (PLAIN_API, *OURS[1:]))]
        ours += [Pairs(PAIR + BATCHED, people, batching, OURS), ByName(BY_NAME + BATCHED, people, batching, OURS)]
    return Contest(TITLE, "operations/s", [*ours, lnbits], GOALS)


GOALS = (
    Goal(PAIR, LNBITS, at_least=1.0, clients=1),
    Goal(PAIR, LNBITS, at_least=1.2, clients=16),
    Goal(PAIR, LNBITS, at_least=1.2, clients=64),
    Goal(PAIR + BATCHED, LNBITS, at_least=1.0, clients=1),
    Goal(PAIR + BATCHED, LNBITS, at_least=3.0, clients=16),
    Goal(PAIR + BATCHED, LNBITS, at_least=5.0, clients=64),
    Goal(PAIR, LNBITS, "cpu"),
    Goal(PAIR + BATCHED, LNBITS, "cpu", at_most=0.5),
    Goal(BY_NAME, LNBITS),
    Goal(BY_NAME + BATCHED, LNBITS, clients=1),
    Goal(BY_NAME + BATCHED, LNBITS, clients=16),
    Goal(BY_NAME + BATCHED, LNBITS, at_least=8.0, clients=64),
)
