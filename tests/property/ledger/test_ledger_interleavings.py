"""Two processes try to break the books at once: anything they may call, on the same accounts, holds and references.

What one process does alone must be, answer by answer, what the model says. What two do together has many right
outcomes; then the answers must fit together (one fresh answer per reference, one resolution per hold, none lost to a
deadlock), the accounts must be what the fresh answers add up to, and the checks of the books must find nothing.
Batches go among the single calls, and give what the same calls one after the other would have given.
"""

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fixtures.postgres import Database
from tests.helpers.ledger.model import Model, Op, posting_of
from tests.helpers.ledger.worker import CLOSED, FROZEN, TASKS, USERS, Answer, Call, Worker

pytestmark = pytest.mark.property

RULES = {
    "fresh",
    "repeat",
    "reference_conflict",
    "insufficient_funds",
    "limit_exceeded",
    "hold_already_resolved",
    "hold_expired",
    "hold_not_due",
    "already_reversed",
    "posting_exceeds_target",
    "ledger_target_missing",
    "account_locked",
    "account_closed",
    "posting_malformed",
    "internal_error",
}
KINDS = (
    *("deposit", "transfer", "hold", "hold", "early hold", "incoming"),
    *("settle", "settle", "confirm", "void", "expire", "reverse"),
)
TOGETHER = ("deposit", "transfer", "transfer", "transfer", "hold", "hold", "early hold", "incoming")
MALFORMED = ("wordy", "misplaced", "foreign", "nowhere")
MODERATE = settings(
    max_examples=15,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a race does not shrink
)
_runs = (f"r{n}" for n in itertools.count())

users = st.integers(0, USERS - 1)
plain = st.permutations(range(USERS)).map(lambda order: (order[0], order[1]))
anybody = st.permutations((*range(USERS), FROZEN, CLOSED)).map(lambda order: (order[0], order[1]))
pairs = st.one_of(plain, plain, plain, anybody)


@st.composite
def operations(draw: st.DrawFn, kinds: tuple[str, ...] = (*KINDS, *KINDS, *KINDS, *MALFORMED)) -> Op:
    kind = draw(st.sampled_from(kinds))
    user, other = draw(pairs)
    return Op(
        kind,
        ref=draw(st.integers(0, 5 if kind.endswith("hold") else 9)),
        user=user,
        other=other,
        amount=draw(st.sampled_from([1, 100, 400, 500, 501, 1_000])),
        fee=draw(st.sampled_from([0, 0, 10])),
        target=draw(st.integers(0, 5)),
        expires=draw(st.sampled_from(["never", "never", "future", "past"])),
    )


@st.composite
def small_holds(draw: st.DrawFn) -> Op:
    amount, fee = draw(st.integers(1, 150)), draw(st.sampled_from([0, 1, 50]))
    kind = draw(st.sampled_from(["hold", "hold", "hold", "early hold"]))
    return Op(kind, ref=0, user=draw(users), amount=amount, fee=fee)


@st.composite
def ends_of(draw: st.DrawFn, hold: Op) -> Op:
    """Of this hold, of which any part leaves; or another call."""
    kind = draw(st.sampled_from(["settle", "settle", "settle", "void", "deposit"]))
    amount, fee = draw(st.integers(1, hold.amount)), draw(st.integers(0, hold.fee))
    return Op(kind, ref=hold.ref + 10, user=hold.user, target=hold.ref, amount=amount, fee=fee)


@st.composite
def nearly_clean(draw: st.DrawFn) -> list[Op]:
    """Every item but one can be booked for certain."""
    count = draw(st.integers(1, 12))
    kinds = st.sampled_from(("deposit", "transfer", "hold", "incoming"))
    ops = [
        Op(draw(kinds), ref=200 + n, user=user, other=other, amount=draw(st.sampled_from([1, 20])))
        for n, (user, other) in enumerate(draw(st.lists(plain, min_size=count, max_size=count)))
    ]
    user, other = draw(pairs)
    odd = draw(st.sampled_from((*MALFORMED, "transfer")))
    return [*ops, Op(odd, ref=199, user=user, other=other)]


batches = st.one_of(
    st.lists(operations(TOGETHER), min_size=1, max_size=25),
    st.lists(operations((*TOGETHER, *TOGETHER, *MALFORMED)), min_size=1, max_size=25),
    nearly_clean(),
).map(tuple)
"""Some with everything in them, some that can be booked all at once, but for one item perhaps."""
calls = st.one_of(operations(), operations(), batches)


def start_of(run: str) -> list[Op]:
    """Everybody but who has left begins with something."""
    return [Op("deposit", ref=100 + user, user=user, amount=1_000) for user in (*range(USERS), FROZEN)]


def model_of(ids: dict[str, int]) -> Model:
    users = frozenset(account for name, account in ids.items() if name.startswith("user"))
    return Model(users, frozen=ids[f"user{FROZEN}"], closed=ids[f"user{CLOSED}"])


def single(calls: Sequence[Call]) -> list[Op]:
    return [op for call in calls for op in (call if isinstance(call, tuple) else (call,))]


@pytest_asyncio.fixture(scope="module")
async def workers(shared_ledger_db: Database) -> AsyncIterator[list[Worker]]:
    """Where a reference is posted by a batch and by itself at once, deadlocks are wanted, and soon seen."""
    conn = await asyncpg.connect(shared_ledger_db.superuser_dsn)
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    await conn.close()
    started = [Worker(shared_ledger_db.app_dsn) for _ in range(2)]
    yield started
    for worker in started:
        worker.close()


@settings(MODERATE, max_examples=15)
@given(some=st.lists(calls, min_size=5, max_size=30))
def test_one_process_alone_gets_the_answers_of_the_model(workers: list[Worker], some: list[Call]) -> None:
    run = next(_runs)
    ids = workers[0].call("open", run)
    some = [*start_of(run), *some]
    model = model_of(ids)
    expected = [(op, model.apply(posting_of(op, run, ids))) for op in single(some)]
    answers: list[Answer] = workers[0].call("post", run, ids, some, 1)
    assert [(answer.op, answer.outcome) for answer in answers] == expected
    check_books(workers[1], model, ids)


@settings(MODERATE, max_examples=60)
@given(before=st.lists(operations(TOGETHER), max_size=5), batch=st.one_of(batches, nearly_clean().map(tuple)))
def test_a_batch_gives_what_the_same_postings_give_one_after_the_other(
    workers: list[Worker], before: list[Op], batch: tuple[Op, ...]
) -> None:
    """Verdicts, balances, versions, counters and every entry; in two sets of accounts, one for each way."""
    seen = []
    for way in ([batch], list(batch)):
        run = next(_runs)
        ids = workers[0].call("open", run)
        answers: list[Answer] = workers[0].call("post", run, ids, [*start_of(run), *before, *way], 1)
        seen.append(([answer.outcome for answer in answers], workers[0].call("tell", run, ids)))
    assert seen[0] == seen[1]
    assert workers[1].call("check", ids)[0] == []


@MODERATE
@given(halves=st.tuples(*[st.lists(calls, min_size=8, max_size=30)] * 2))
def test_two_processes_together_cannot_break_the_books(
    workers: list[Worker], halves: tuple[list[Call], list[Call]]
) -> None:
    run = next(_runs)
    ids = workers[0].call("open", run)
    answers: list[Answer] = workers[0].call("post", run, ids, start_of(run), 1)
    for worker, half in zip(workers, halves, strict=True):
        worker.send("post", run, ids, half, TASKS)
    for worker in workers:
        answers += worker.receive()
    assert {answer.outcome for answer in answers} <= RULES
    check_books(workers[0], check_answers(answers, run, ids), ids)


@settings(MODERATE, max_examples=20)
@given(holds=st.lists(small_holds(), min_size=2, max_size=6), data=st.data())
def test_counters_add_up_what_has_left_and_what_is_still_held(
    workers: list[Worker], holds: list[Op], data: st.DataObject
) -> None:
    """Two processes end the same holds at once: as a whole, in part, by giving back, or not yet."""
    run = next(_runs)
    ids = workers[0].call("open", run)
    holds = [replace(hold, ref=place) for place, hold in enumerate(holds)]
    answers: list[Answer] = workers[0].call("post", run, ids, [*start_of(run), *holds], 1)
    halves = [[data.draw(ends_of(hold)) for hold in data.draw(st.permutations(holds))] for _ in workers]
    for worker, half in zip(workers, halves, strict=True):
        worker.send("post", run, ids, half, TASKS)
    for worker in workers:
        answers += worker.receive()
    assert {answer.outcome for answer in answers} <= RULES
    check_books(workers[0], check_answers(answers, run, ids), ids)


@settings(MODERATE, max_examples=10)
@given(op=operations(), repeats=st.integers(2, 12))
def test_the_same_call_from_everywhere_happens_once(workers: list[Worker], op: Op, repeats: int) -> None:
    run = next(_runs)
    ids = workers[0].call("open", run)
    hold = Op("hold", ref=op.target, user=op.user, amount=400)
    answers: list[Answer] = workers[0].call("post", run, ids, [*start_of(run), hold], 1)
    for worker in workers:
        worker.send("post", run, ids, [op] * repeats, TASKS)
    answers += [answer for worker in workers for answer in worker.receive()]
    check_books(workers[0], check_answers(answers, run, ids), ids)


def test_a_process_killed_while_it_posts_leaves_whole_transfers(
    shared_ledger_db: Database, workers: list[Worker]
) -> None:
    for _ in range(3):
        run = next(_runs)
        ids = workers[0].call("open", run)
        workers[0].call("post", run, ids, start_of(run), 1)
        victim = Worker(shared_ledger_db.app_dsn)
        victim.call("check", ids)  # it is up
        ops = [Op("transfer", ref=1_000 + n, user=n % 2, other=(n + 1) % 2) for n in range(5_000)]
        victim.send("post", run, ids, ops, TASKS)
        workers[0].send("post", run, ids, ops[:200], TASKS)
        time.sleep(0.15)  # somewhere in the middle of it
        assert victim.process.pid is not None
        os.kill(victim.process.pid, signal.SIGKILL)
        assert {answer.outcome for answer in workers[0].receive()} <= {"fresh", "repeat"}
        victim.close()
        again = workers[1].call("post", run, ids, ops[:400], TASKS)
        assert {answer.outcome for answer in again} <= {"fresh", "repeat"}
        broken, balances, _ = workers[0].call("check", ids)
        assert broken == []
        assert sum(settled for settled, _ in balances.values()) == -1_000 * len(start_of(run))


def check_answers(answers: list[Answer], run: str, ids: dict[str, int]) -> Model:
    """The answers fit together; gives what they add up to, as far as order does not matter."""
    fresh = [answer for answer in answers if answer.outcome == "fresh"]
    postings = {answer.transfer_id: posting_of(answer.op, run, ids) for answer in fresh}
    refs = Counter(posting.ref for posting in postings.values())
    assert not [ref for ref, times in refs.items() if times > 1]
    resolved = Counter(target for posting in postings.values() for target in posting.relates_to)
    assert not [target for target, times in resolved.items() if times > 1]
    for answer in answers:
        if answer.outcome == "repeat":
            first = postings[answer.transfer_id]
            assert first.payload_hash == posting_of(answer.op, run, ids).payload_hash
    model = model_of(ids)
    for posting in sorted(postings.values(), key=lambda posting: (len(posting.relates_to), posting.phase == "reverse")):
        model.book(posting)
    return model


def check_books(worker: Worker, model: Model, ids: dict[str, int]) -> None:
    """Accounts and counters are what the model says, and the books find nothing wrong with themselves."""
    broken, balances, counters = worker.call("check", ids)
    assert broken == []
    assert model.above_limits() == []
    assert counters == {
        (*key, window_s): amount for key, amount in model.counted.items() for window_s in (86_400, 604_800, 2_592_000)
    }
    for user in model.users:
        assert model.counted.get((user, "send"), 0) == model.left_and_held(user)
        assert balances[user] == (model.settled.get(user, 0), model.held.get(user, 0))
        assert model.available(user) >= 0
