"""Many payments in one request, all of them or none: `POST /v1/payments/batch`.

The bench looks for it in the API's own description first. If it is missing it is shown as not built, and nothing fails.
"""

import random

from infra.bench.contest import NOT_BUILT, Begin, Contest, Contestant, Work, keep_asking
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.pairs import AMOUNT_MSAT
from infra.bench.people import Json, People, Person, expect
from infra.bench.servers import OURS, Servers

PATH = "/v1/payments/batch"
SIZES = (100, 1000)
GOAL = 1000


class Batch(Contestant):
    """One request after the other, each with this many transfers from one payer to random users."""

    components = OURS

    def __init__(self, people: People, port: int, size: int) -> None:
        self.name = f"batch of {size}"
        self._people, self._port, self._size = people, port, size
        self._wires: dict[int, Wire] = {}

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        for number in range(len(self._wires), clients):
            self._wires[number] = Wire(self._port)
        await self.operation(0)
        begin()
        work = await keep_asking(self.operation, clients, seconds)
        return Work(work.done * self._size, work.elapsed_s, work.latency_ms)

    async def operation(self, client: int) -> None:
        """One request to its end."""
        payer = random.choice(self._people.everybody)
        others = [person for person in self._people.everybody if person is not payer]
        payees = random.choices(others, k=self._size)
        headers = {"Authorization": f"Bearer {payer.key}", "Idempotency_Key": self._people.new_key()}
        expect(await self._wires[client].ask("POST", PATH, _body(payer, payees), Prefer="wait=30", **headers))
        for payee in payees:
            self._people.moved(payer.number, payee.number, AMOUNT_MSAT)

    async def check(self) -> None:
        await self._people.check()


def _body(payer: Person, payees: list[Person]) -> Json:
    transfers = [{"destination": f"@{payee.username}", "amount_msat": AMOUNT_MSAT} for payee in payees]
    return {"wallet_id": payer.wallet_id, "items": transfers}


async def contest(servers: Servers, people: People) -> Contest:
    """Both sizes, or a note that batches are not built."""
    port = servers.stack.home.ports()["api-1"]
    wire = Wire(port)
    paths = expect(await wire.ask("GET", "/openapi.json"), 200)["paths"]
    wire.close()
    built = PATH in paths
    contestants = [Batch(people, port, size) if built else (f"batch of {size}", NOT_BUILT) for size in SIZES]
    return Contest("batches over HTTP", "transfers/s", contestants, [Goal("batch of 1000", at_least=GOAL)])
