"""The scenarios of a run, by name, and what they share: the stack, the users, LNbits and the report."""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from infra.bench import (
    batch,
    books,
    chain,
    flood,
    flow,
    history,
    idle,
    lightning,
    lnbits,
    pairs,
    people,
    processes,
)
from infra.bench.contest import Contest, Pace, eventually, find_wrong, play
from infra.bench.figures import Line, judge
from infra.bench.http import healthy
from infra.bench.machine import Meter
from infra.bench.report import Report
from infra.bench.servers import PLAIN, UNLIMITED, Servers, api_command, can_batch, free_port
from infra.local import environment

CLIENTS = (1, 16, 64)


@dataclass
class Bench:
    """One run."""

    servers: Servers
    stack: AsyncExitStack
    quick: bool
    report: Report = field(default_factory=Report)
    began: float = field(default_factory=time.monotonic)
    _people: people.People | None = None
    _other: lnbits.Lnbits | tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.meter = Meter(self.servers.roots)

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", file=sys.stderr, flush=True)

    def pace(self, turn_s: float, clients: Sequence[int] = CLIENTS) -> Pace:
        """Three rounds; a quick run has one round less, shorter turns, and one number of clients."""
        return Pace(2, min(turn_s, 1.0), clients[len(clients) // 2 :][:1]) if self.quick else Pace(3, turn_s, clients)

    async def measure(self, contest: Contest, pace: Pace) -> None:
        """Play it and note what came out."""
        lines: list[Line] = []
        try:
            await play(contest, pace, self.meter, self.say, lines)
        finally:
            self._note(contest, lines)

    async def attempt(self, name: str) -> None:
        """One scenario; what breaks it is noted and ends nothing else."""
        try:
            await SCENARIOS[name](self)
        except Exception as error:  # noqa: BLE001 - the figures of the other scenarios are worth keeping
            wrong = find_wrong(error)
            if wrong is None:
                traceback.print_exception(error)
            self.report.failures.append(f"{name}: {wrong or repr(error)}")
            self.say(self.report.failures[-1])

    def _note(self, contest: Contest, lines: Sequence[Line]) -> None:
        self.report.lines += lines
        self.report.units[contest.title] = contest.unit
        self.report.verdicts += [(contest.title, verdict) for verdict in judge(contest.goals, lines)]

    async def users(self) -> people.People:
        """The users, opened when they are first needed."""
        if self._people is None:
            self.say("users: opening accounts, funding them")
            self._people = await people.settle_in(self.servers)
        return self._people

    async def ledger(self) -> None:
        """The books alone."""
        self.say("ledger: filling databases")
        await self.measure(await books.prepare(self.servers), self.pace(1))
        await books.prove(self.servers)

    async def workflows(self) -> None:
        """The difference between Temporal's own cost and ours."""
        everybody = await self.users()
        helper = flow.Helper(self.servers, "bare")
        await helper.start()
        try:
            await self.measure(await flow.contest(self.servers, everybody), self.pace(4, clients=(32,)))
        finally:
            await helper.stop()

    async def standing(self) -> None:
        """Start-up and memory."""
        self.say("standing: memory, start-up, payments in flight")
        times, count = (1, 100) if self.quick else (3, 500)
        self.report.facts += idle.memory(self.meter, "now")
        self.report.facts += await idle.start_up(self.servers, times, free_port())
        self.report.facts += await idle.waiting_payments(self.servers, self.meter, count)

    async def processes(self) -> None:
        """What a second process gives."""
        await self.measure(processes.contest(self.servers, await self.users()), self.pace(4, processes.CLIENTS))

    async def payments(self) -> None:
        """What apps do, compared with LNbits."""
        everybody, other = await self.users(), await self._lnbits()
        usual = self.servers.stack.home.ports()["api-1"]
        if not can_batch():
            await self.measure(pairs.contest(everybody, usual, None, other), self.pace(3))
            return
        port = free_port()
        settings = {**environment.of_api(self.servers.stack.home), **UNLIMITED, **PLAIN}
        plain = await self.servers.spawn(pairs.PLAIN_API, api_command(self.servers.tools, port), settings)
        try:
            await eventually(lambda: healthy(port), "an API without batching")
            await self.measure(pairs.contest(everybody, port, usual, other), self.pace(3))
        finally:
            await self.servers.end(pairs.PLAIN_API, plain)

    async def batches(self) -> None:
        """Many payments in one request."""
        await self.measure(await batch.contest(self.servers, await self.users()), self.pace(4, clients=(4,)))

    async def lightning(self) -> None:
        """What leaves the bank, compared with an LND without an engine."""
        everybody = await self.users()
        self.say("lightning: starting a node without an engine")
        async with lightning.contests(self.servers, everybody) as contests:
            for contest, turn_s, clients in contests:
                await self.measure(contest, self.pace(turn_s, clients=clients))

    async def flood(self) -> None:
        """What strangers do to others."""
        await self.measure(flood.contest(self.servers, await self.users()), self.pace(6, flood.CLIENTS))

    async def history(self) -> None:
        """Ten times as much of everything."""
        self.say("history: filling two books")
        await self.measure(await history.prepare_books(self.servers), self.pace(2, clients=(16,)))
        payments = 200 if self.quick else 1000
        growth = history.Growth(self.servers, await self.users(), await self._lnbits(), payments)
        pace, lines = self.pace(4, clients=(16,)), list[Line]()
        try:
            for factor, suffix in ((1, ""), (history.FACTOR, history.GROWN)):
                self.say(f"history: {factor * payments} payments in each bank")
                await growth.fill(factor)
                await play(growth.contest(suffix), pace, self.meter, self.say, lines)
        finally:
            self._note(growth.contest(), lines)

    async def deposits(self) -> None:
        """What comes in on chain."""
        bank = chain.deposits.Bank(self.servers, await self.users())
        size = chain.deposits.QUICK if self.quick else chain.deposits.WHOLE
        self.say("deposits: memory with few addresses")
        self.report.facts += await chain.deposits.measure_memory(bank, self.meter, chain.deposits.FEW_ADDRESSES)
        await self.measure(chain.deposits.lone(bank, size.lone), Pace(size.rounds, 0, (1,)))
        self.say(f"deposits: making {size.addresses:,} addresses")
        self.report.facts += await chain.deposits.measure_memory(bank, self.meter, size.addresses)
        await self.measure(chain.deposits.crowds(bank, size.crowd), Pace(size.rounds, 0, (1,)))
        beside = Pace(size.rounds, chain.bystander.ALONE_S, (1,))
        await self.measure(chain.bystander.bystanders(bank, size.crowd), beside)

    async def withdrawals(self) -> None:
        """What goes out on chain."""
        rules = await chain.funds.read_rules(self.servers)
        await self.measure(chain.coins.choices(rules), self.pace(3, (1,)))
        bank = chain.deposits.Bank(self.servers, await self.users())
        size = chain.crowds.QUICK if self.quick else chain.crowds.WHOLE
        paid = chain.crowds.crowds(bank, size)
        await self.measure(paid.contest, Pace(size.rounds, 0, (1,)))
        self.report.facts += paid.facts()
        count = chain.batcher.QUICK if self.quick else chain.batcher.WHOLE
        self.say(f"withdrawals: a batcher with {count:,} payouts")
        self.report.facts += await chain.batcher.measure(self.servers.tools.temporal, count)

    async def _lnbits(self) -> lnbits.Lnbits | tuple[str, str]:
        """LNbits, started when it is first needed; or why it is not there."""
        if self._other is None:
            self._other = await self._start_lnbits()
        return self._other

    async def _start_lnbits(self) -> lnbits.Lnbits | tuple[str, str]:
        interpreter = await asyncio.to_thread(lnbits.provision)
        if isinstance(interpreter, str):
            return pairs.LNBITS, interpreter
        self.say("LNbits: starting")
        internet = await lnbits.play_internet()
        self.stack.callback(internet.close)
        running = await lnbits.start(self.servers, interpreter, free_port(), internet.sockets[0].getsockname()[1])
        self.stack.push_async_callback(running.stop)
        await running.settle_in()
        return running


SCENARIOS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "ledger": Bench.ledger,
    "workflows": Bench.workflows,
    "payments": Bench.payments,
    "batches": Bench.batches,
    "lightning": Bench.lightning,
    "deposits": Bench.deposits,
    "withdrawals": Bench.withdrawals,
    "flood": Bench.flood,
    "history": Bench.history,
    "standing": Bench.standing,
    "processes": Bench.processes,
}
