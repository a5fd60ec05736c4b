"""Every error that the driver knows, and what it means before COMMIT and in it."""

import ssl

import asyncpg
import pytest

from engine.domain.errors import Conflict, EngineError, InvariantBroken, OutcomeUnknown, Refused, Unavailable
from engine.ledger.database import translate

pytestmark = pytest.mark.unit

LOST = ("08", "53", "55", "57", "58")
"""Connection, resources, state, operator, system: the transaction can be made anew, and a COMMIT is not known."""
RACED = ("40001", "40002", "40P01")
"""Rolled back for certain, also in COMMIT."""
ENDED = {"25006", "25P03", "25P04", "40000", "40003"}


def all_of(kind: type[Exception]) -> set[type[Exception]]:
    return {kind} | {each for below in kind.__subclasses__() for each in all_of(below)}


ANSWERS = sorted(
    {(str(state), each) for each in all_of(asyncpg.PostgresError) if (state := getattr(each, "sqlstate", None))},
    key=lambda pair: (pair[0], pair[1].__name__),
)


def test_the_driver_knows_many() -> None:
    assert len(ANSWERS) > 200
    assert {"57P01", "57P02", "57P03", "57P04", "57P05", "53300", "25006", "08006"} <= {state for state, _ in ANSWERS}


@pytest.mark.parametrize(("state", "kind"), ANSWERS, ids=lambda each: getattr(each, "__name__", each))
def test_each_answer_of_postgres_is_known_by_its_class(state: str, kind: type[Exception]) -> None:
    error = kind("words")
    before, within = (type(translate(error, committing=committing)) for committing in (False, True))
    if issubclass(kind, asyncpg.InvalidCachedStatementError):
        assert (before, within) == (Unavailable, OutcomeUnknown)
    elif state in RACED or state == "40000":
        assert (before, within) == (Unavailable, Unavailable)
    elif state.startswith(LOST) or state in ENDED:
        assert (before, within) == (Unavailable, OutcomeUnknown)
    else:
        assert (before, within) == (InvariantBroken, InvariantBroken)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.ProtocolError("unexpected"),
        asyncpg.TargetServerAttributeNotMatched("no primary"),
        asyncpg.OutdatedSchemaCacheError("anew"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.InterfaceError("cannot call Transaction.start(): the underlying connection is closed"),
        ConnectionResetError(104, "reset"),
        BrokenPipeError(32, "pipe"),
        OSError(113, "no route to host"),
        ssl.SSLError(1, "wrong version"),
        TimeoutError(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
def test_a_line_is_lost_whatever_else_the_driver_says_of_it(error: Exception) -> None:
    assert type(translate(error)) is Unavailable
    assert type(translate(error, committing=True)) is OutcomeUnknown


def test_an_argument_that_cannot_be_taken_is_not_an_outage() -> None:
    too_large = asyncpg.exceptions._base.DataError("invalid input for query argument $1: 9223372036854775808")
    assert type(translate(too_large)) is InvariantBroken


@pytest.mark.parametrize(
    ("state", "kind"), [("LD402", Refused), ("LD406", Unavailable), ("LD409", Conflict), ("LD001", InvariantBroken)]
)
def test_a_rule_of_the_ledger_is_what_it_is_also_in_commit(state: str, kind: type[EngineError]) -> None:
    error = type("Rule", (asyncpg.PostgresError,), {"sqlstate": state})("a rule")
    assert type(translate(error, committing=True)) is kind
