"""The explorer of orders itself: the orders that it leaves out end as one that it takes, and it finds what is wrong.

Two programs of a few statements meet on two rows of a real PostgreSQL. All their orders are taken, and then the reduced
ones: what the programs have read and what they have left behind must be the same sets.
"""

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import asyncpg
import pytest
import pytest_asyncio

from engine.ledger.database import Connection, transaction
from tests.fixtures.postgres import Database
from tests.helpers.schedule import Run, Seat, explore, nothing, open_seat

pytestmark = [pytest.mark.property]

STEPS = {"FROM toy": "looks", "UPDATE toy": "writes", "INTO toy": "adds", "COMMIT;": "commits", "ROLLBACK;": "gives up"}
STATEMENTS = {
    "look": "SELECT n FROM toy WHERE world = $1 AND k = $2 AND $3::int > 0",
    "lock": "SELECT n FROM toy WHERE world = $1 AND k = $2 AND $3::int > 0 FOR UPDATE",
    "share": "SELECT n FROM toy WHERE world = $1 AND k = $2 AND $3::int > 0 FOR SHARE",
    "write": "UPDATE toy SET n = 10 * n + $3 WHERE world = $1 AND k = $2 RETURNING n",
    "copy": "UPDATE toy SET n = 10 * (SELECT sum(n) FROM toy WHERE world = $1) + $3 WHERE world = $1 AND k = $2",
    "add": "INSERT INTO toy VALUES ($1, 2 + $2, $3) ON CONFLICT DO NOTHING RETURNING n",
}
"""The last is the number of who says it."""
_worlds = itertools.count()
Kind = Literal["look", "lock", "share", "write", "copy", "add"]
End = tuple[tuple[object, ...], tuple[object, ...], tuple[object, ...]]
"""What the first has read, what the second has read, and the rows that are left."""


@dataclass
class Transaction:
    """Statements, each with the number of its row; outside of a transaction if they are `alone`."""

    statements: Sequence[tuple[Kind, int]]
    end: Literal["commit", "roll back", "alone"] = "commit"


Program = Sequence[Transaction]


class _GivenUpError(Exception):
    pass


@dataclass
class Toys:
    """Where programs meet."""

    observer: Connection
    seats: list[Seat]
    ends: set[End] = field(default_factory=set)

    async def meet(self, programs: Sequence[Program], *, reduced: bool) -> int:
        self.ends = set()
        world, read = 0, [[], []]  # type: ignore[var-annotated]

        async def start(run: Run) -> Callable[[], Awaitable[None]]:
            nonlocal world, read
            world, read = next(_worlds), [[], []]
            await self.observer.execute("INSERT INTO toy VALUES ($1, 0, 1), ($1, 1, 2)", world)
            for number, (seat, program) in enumerate(zip(self.seats, programs, strict=True)):
                run.actor("AB"[number], seat).begins(_carry_out(seat, program, world, number + 1, read[number]))
            return nothing

        async def check(run: Run) -> None:
            for actor in run.actors:
                assert actor.task is not None
                actor.task.result()
            rows = await self.observer.fetch("SELECT k, n FROM toy WHERE world = $1 ORDER BY k", world)
            self.ends.add((tuple(read[0]), tuple(read[1]), tuple(tuple(row) for row in rows)))

        return await explore(self.observer, start, check, reduced=reduced)


async def _carry_out(seat: Seat, program: Program, world: int, number: int, read: list[object]) -> None:
    for part in program:
        if part.end == "alone":
            for kind, k in part.statements:
                read.append(await seat.pool.fetchval(STATEMENTS[kind], world, k, number))
            continue
        try:
            async with transaction(seat.pool) as conn:
                for kind, k in part.statements:
                    read.append(await conn.fetchval(STATEMENTS[kind], world, k, number))
                if part.end == "roll back":
                    raise _GivenUpError
        except _GivenUpError:
            pass


@pytest_asyncio.fixture(scope="module")
async def toys(shared_ledger_db: Database) -> AsyncIterator[Toys]:
    dsn = shared_ledger_db.superuser_dsn
    observer = await asyncpg.connect(dsn)
    await observer.execute("CREATE TABLE toy (world int, k int, n bigint, PRIMARY KEY (world, k))")
    seats = [await open_seat(dsn, STEPS) for _ in "AB"]
    yield Toys(observer, seats)
    for seat in seats:
        await seat.pool.close()
    await observer.close()


def _drawn(chance: random.Random) -> Program:
    """Rows are locked in the order of their numbers, so nobody waits in a circle."""
    program = []
    for size in chance.choice([(2,), (1, 1)]):
        rows = sorted(chance.choices([0, 1], k=size))
        statements: list[tuple[Kind, int]] = [(chance.choice(list(STATEMENTS)), k) for k in rows]  # type: ignore[arg-type]
        statements.sort(key=lambda each: each[0] == "add")  # the rows that are added have the highest numbers
        if statements[0] == ("share", statements[-1][1]):  # two who share a row must not both want it for themselves
            statements[0] = ("lock", statements[0][1])
        program.append(Transaction(statements, chance.choice(["commit", "commit", "roll back", "alone"])))
    return program


@pytest.mark.parametrize("seed", range(6))
async def test_the_reduced_orders_end_in_every_way_in_which_any_order_ends(toys: Toys, seed: int) -> None:
    chance = random.Random(seed)
    programs = [_drawn(chance), _drawn(chance)]
    taken, ends = await toys.meet(programs, reduced=False), toys.ends
    fewer = await toys.meet(programs, reduced=True)
    assert toys.ends == ends
    assert fewer < taken


async def test_two_programs_on_rows_of_their_own_are_taken_in_few_orders(toys: Toys) -> None:
    programs = [[Transaction([("look", 0), ("write", 0)])], [Transaction([("look", 1), ("write", 1)])]]
    assert await toys.meet(programs, reduced=False) == 70
    # The database is one thing: whether a commit came before a statement of the other counts.
    assert await toys.meet(programs, reduced=True) < 20


async def test_a_lost_update_is_found(toys: Toys) -> None:
    """Both read before either has written."""
    program = [Transaction([("look", 0)]), Transaction([("write", 0)])]
    await toys.meet([program, program], reduced=True)
    assert {(first, second) for (first, _), (second, _), _ in toys.ends} == {(1, 1), (1, 11), (12, 1)}


async def test_two_who_wait_for_each_other_are_found(toys: Toys) -> None:
    there: Program = [Transaction([("lock", 0), ("lock", 1)])]
    back: Program = [Transaction([("lock", 1), ("lock", 0)])]
    with pytest.raises(AssertionError, match="all wait for each other"):
        await toys.meet([there, back], reduced=True)
