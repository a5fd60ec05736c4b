"""Two processes try to break the books at once: anything they may call, on the same accounts, holds and references.

What one process does alone must be, answer by answer, what the model says. What two do together has many right
outcomes; then the answers must fit together (one fresh answer per reference, one resolution per hold, none lost to a
deadlock), the accounts must be what the fresh answers add up to, and the checks of the books must find nothing.
"""

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fixtures.postgres import Database
from tests.property.ledger_model import Model, Op, posting_of
from tests.property.ledger_worker import TASKS, USERS, Answer, Worker

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
}
KINDS = ("deposit", "transfer", "hold", "hold", "incoming", "settle", "settle", "confirm", "void", "expire", "reverse")
MODERATE = settings(
    max_examples=15,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a race does not shrink
)
_runs = (f"r{n}" for n in itertools.count())

users = st.integers(0, USERS - 1)
pairs = st.permutations(range(USERS)).map(lambda order: (order[0], order[1]))


@st.composite
def operations(draw: st.DrawFn) -> Op:
    kind = draw(st.sampled_from(KINDS))
    user, other = draw(pairs)
    return Op(
        kind,
        ref=draw(st.integers(0, 9 if kind != "hold" else 5)),
        user=user,
        other=other,
        amount=draw(st.sampled_from([1, 100, 400, 500, 501, 1_000])),
        fee=draw(st.sampled_from([0, 0, 10])),
        target=draw(st.integers(0, 5)),
        expires=draw(st.sampled_from(["never", "never", "future", "past"])),
    )


def start_of(run: str) -> list[Op]:
    """Everybody begins with something."""
    return [Op("deposit", ref=100 + user, user=user, amount=1_000) for user in range(USERS)]


@pytest.fixture(scope="module")
def workers(shared_ledger_db: Database) -> Iterator[list[Worker]]:
    started = [Worker(shared_ledger_db.app_dsn) for _ in range(2)]
    yield started
    for worker in started:
        worker.close()


@settings(MODERATE, max_examples=15)
@given(ops=st.lists(operations(), min_size=10, max_size=50))
def test_one_process_alone_gets_the_answers_of_the_model(workers: list[Worker], ops: list[Op]) -> None:
    run = next(_runs)
    ids = workers[0].call("open", run)
    ops = start_of(run) + ops
    model = Model(frozenset(ids[f"user{n}"] for n in range(USERS)))
    expected = [model.apply(posting_of(op, run, ids)) for op in ops]
    answers: list[Answer] = workers[0].call("post", run, ids, ops, 1)
    assert [(answer.op, answer.outcome) for answer in answers] == list(zip(ops, expected, strict=True))
    check_books(workers[1], model, ids)


@MODERATE
@given(halves=st.tuples(*[st.lists(operations(), min_size=15, max_size=50)] * 2))
def test_two_processes_together_cannot_break_the_books(
    workers: list[Worker], halves: tuple[list[Op], list[Op]]
) -> None:
    run = next(_runs)
    ids = workers[0].call("open", run)
    answers: list[Answer] = workers[0].call("post", run, ids, start_of(run), 1)
    for worker, ops in zip(workers, halves, strict=True):
        worker.send("post", run, ids, ops, TASKS)
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
        assert sum(settled for settled, _ in balances.values()) == -1_000 * USERS


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
    model = Model(frozenset(ids[f"user{n}"] for n in range(USERS)))
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
        assert balances[user] == (model.settled.get(user, 0), model.held.get(user, 0))
        assert model.available(user) >= 0
