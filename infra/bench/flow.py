"""Our payment workflow, compared with the least that Temporal can do: a workflow with one empty local activity.

Both are started and waited for by the same client with the same settings, and run in worker processes with the same
settings. The difference between them is our own work: reading the request, one transaction in Postgres, search
attributes.
"""

import asyncio
import random
import secrets
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client

from api.service.payment import payment_run
from engine.clients.announcements import Listener
from engine.contracts import queues
from engine.contracts.converter import DATA_CONVERTER
from engine.contracts.payment import PaymentRequest, PaymentStatus
from engine.domain.ids import AccountId, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from infra.bench.bare import BareWorkflow
from infra.bench.contest import Begin, Contest, Contestant, Work, Wrong, eventually, keep_asking
from infra.bench.figures import Goal
from infra.bench.pairs import AMOUNT_MSAT
from infra.bench.people import People
from infra.bench.servers import Servers
from infra.bench.workers import BARE
from infra.local import environment

TITLE = "workflows"
OURS, LEAST = "payment workflow", "bare workflow"


class Helper:
    """A worker process of the bench."""

    def __init__(self, servers: Servers, kind: str) -> None:
        self._servers, self.kind = servers, kind
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it polls."""
        settings = environment.of_worker(self._servers.stack.home, f"bench-{self.kind}")
        ready = Path(settings["MILLRACE_READY_FILE"])
        command: list[str | Path] = [self._servers.tools.python, "-m", "infra.bench.workers", self.kind]
        self._process = await self._servers.spawn(self.kind, command, settings)

        async def polls() -> bool:
            return await asyncio.to_thread(ready.exists)

        await eventually(polls, f"the bench's {self.kind} worker")

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            await self._servers.end(self.kind, self._process)


class Bare(Contestant):
    """One empty local activity."""

    name = LEAST
    components: Sequence[str] = ("bare", "temporal")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._failed = 0

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        await asyncio.gather(*(self.operation(number) for number in range(clients)))
        begin()
        return await keep_asking(self.operation, clients, seconds)

    async def operation(self, _client: int) -> None:
        """One workflow to its end."""
        handle = await self._client.start_workflow(
            BareWorkflow.run,
            id=f"bench-{secrets.token_hex(8)}",
            task_queue=BARE,
            task_timeout=queues.TASK_TIMEOUT,
        )
        await handle.result()

    async def check(self) -> None:
        """Nothing to check: a workflow that fails raises in `operation`."""


class Payments(Contestant):
    """Payments between users, started as the API starts them."""

    name = OURS
    components: Sequence[str] = ("worker", "temporal", "postgres")

    def __init__(self, client: Client, people: People) -> None:
        self._client, self._people = client, people
        self._nobody = Listener("redis://nowhere")
        """Does not listen: here Temporal tells the end, as it does for the bare workflow."""

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        await asyncio.gather(*(self.operation(number) for number in range(clients)))
        begin()
        return await keep_asking(self.operation, clients, seconds)

    async def operation(self, _client: int) -> None:
        """One payment to its end."""
        payer, payee = random.sample(self._people.everybody, 2)
        asked = request(payer.account_id, payer.wallet_id, payee.wallet_id, self._people.new_key())
        run = await payment_run.start(self._client, self._nobody, asked, payee=f"@{payee.username}")
        outcomes = await run.ended
        outcome = outcomes[0] if outcomes else None
        if outcome is None or outcome.status != PaymentStatus.SETTLED:
            raise Wrong(f"a payment ended as {outcome}")
        self._people.moved(payer.number, payee.number, AMOUNT_MSAT)

    async def check(self) -> None:
        await self._people.check()


def request(account_id: str, wallet_id: str, payee_wallet_id: str, key: str) -> PaymentRequest:
    """What the API would make of a payment to a user."""
    account = AccountId(account_id)
    return PaymentRequest(
        payment_id=PaymentId(id_for_key("pay", account, key)),
        account_id=account,
        wallet_id=WalletId(wallet_id),
        idempotency_key=key,
        body_hash="00" * 32,
        destination=f"wallet:{payee_wallet_id}",
        payee_wallet_id=WalletId(payee_wallet_id),
        amount_msat=Msat(AMOUNT_MSAT),
        max_fee_msat=Msat(0),
    )


async def connect(servers: Servers) -> Client:
    """Temporal, as the API reaches it."""
    told = environment.of_processes(servers.stack.home)
    return await Client.connect(
        told["MILLRACE_TEMPORAL_ADDRESS"],
        namespace=told["MILLRACE_TEMPORAL_NAMESPACE"],
        data_converter=DATA_CONVERTER,
    )


async def contest(servers: Servers, people: People) -> Contest:
    """Both, over one client."""
    client = await connect(servers)
    return Contest(TITLE, "workflows/s", [Payments(client, people), Bare(client)], [Goal(OURS, LEAST, at_least=0.8)])
