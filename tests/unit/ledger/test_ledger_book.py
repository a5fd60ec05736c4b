"""A posting that could not be true cannot be made."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import InvariantBroken
from engine.domain.limit import Count
from engine.ledger.book import MAX_COUNTS, MAX_LEG_MSAT, Counted, Leg, Posting, credit, debit

pytestmark = pytest.mark.unit

A, B, C = 1, 2, 3
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


def posting(**changes: object) -> Posting:
    content: dict[str, object] = {
        "ref": "pay:1",
        "template": "transfer",
        "phase": "post",
        "actor": "test",
        "legs": [debit(A, 100), credit(B, 100)],
    }
    return Posting(**(content | changes))  # type: ignore[arg-type]


def test_a_debit_adds_and_a_credit_takes_in_the_signs_of_the_books() -> None:
    assert (debit(A, 5).amount_msat, credit(A, 5).amount_msat) == (5, -5)


@pytest.mark.parametrize("amount", [0, -1, MAX_LEG_MSAT + 1, True, 1.0, "1", None])
def test_a_leg_is_a_whole_positive_amount_of_bitcoin_that_exists(amount: object) -> None:
    for make in (debit, credit):
        with pytest.raises(InvariantBroken):
            make(A, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"legs": []},
        {"legs": [debit(A, 1)]},
        {"legs": [debit(A, 2), credit(B, 1)]},
        {"legs": [debit(A, 1), credit(A, 1)]},
        {"legs": [debit(A, 1), debit(A, 1), credit(B, 2)]},
        {"legs": [Leg(A, 0), Leg(B, 0)]},
        {"legs": [Leg(n, 1) for n in range(3000)] + [Leg(n, -1) for n in range(3000, 6000)]},
        {"ref": ""},
        {"ref": "x" * 201},
        {"actor": ""},
        {"template": ""},
        {"metadata": {"share": 0.5}},
        {"metadata": {"list": []}},
        {"relates_to": ["h"]},
        {"phase": "hold", "relates_to": ["h"]},
        {"phase": "settle"},
        {"phase": "reverse"},
        {"phase": "reverse", "relates_to": ["a", "b"]},
        {"phase": "void", "relates_to": ["h"]},
        {"phase": "void", "legs": []},
        {"phase": "expire", "relates_to": ["h"]},
        {"phase": "settle", "relates_to": ["h", "h"]},
        {"expires_at": NEW_YEAR},
        {"phase": "hold", "expires_at": NEW_YEAR.replace(tzinfo=None)},
        {"counted": Counted(C, [Count("send", 1)])},
        {"counted": Counted(A, [])},
        {"counted": Counted(A, [Count("send", 0)])},
        {"counted": Counted(A, [Count("", 1)])},
        {"counted": Counted(A, [Count("send", 1), Count("send", 1)])},
        {"counted": Counted(A, [Count(f"kind {n}", 1) for n in range(MAX_COUNTS + 1)])},
        {"counted": Counted(A, [Count("send", 1, {3_600: 1})])},
        {"counted": Counted(A, [Count("send", 1, {86_400: -1})])},
        {"phase": "settle", "relates_to": ["h"], "counted": Counted(A, [Count("send", 1)])},
    ],
    ids=str,
)
def test_an_impossible_posting_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(InvariantBroken):
        posting(**changes)


def test_every_phase_has_its_shape() -> None:
    posting(phase="hold", expires_at=NEW_YEAR, counted=Counted(A, [Count("send", 100, {86_400: 0})]))
    posting(phase="settle", relates_to=["h1", "h2"])
    posting(phase="void", legs=[], relates_to=["h1"])
    posting(phase="expire", legs=[], relates_to=["h1"])
    posting(phase="reverse", relates_to=["pay:1"])


def test_a_posting_keeps_its_own_copy_of_what_it_was_made_from() -> None:
    legs, metadata = [debit(A, 100), credit(B, 100)], {"payment": "pay_1"}
    made = posting(legs=legs, metadata=metadata)
    legs.append(debit(C, 1))
    metadata["payment"] = "other"
    assert len(made.legs) == 2
    assert made.metadata == {"payment": "pay_1"}


@given(st.permutations([debit(A, 60), debit(B, 40), credit(C, 100)]), st.permutations(["h1", "h2", "h3"]))
def test_the_hash_does_not_depend_on_the_order_of_legs_and_relations(legs: list[Leg], holds: list[str]) -> None:
    first = posting(phase="settle", legs=[debit(A, 60), debit(B, 40), credit(C, 100)], relates_to=["h1", "h2", "h3"])
    assert posting(phase="settle", legs=legs, relates_to=holds).payload_hash == first.payload_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"legs": [debit(A, 99), credit(B, 99)]},
        {"legs": [debit(B, 100), credit(A, 100)]},
        {"legs": [debit(A, 100), credit(C, 100)]},
        {"phase": "hold"},
        {"template": "other"},
        {"metadata": {"payment": "pay_2"}},
        {"metadata": {"payment": 1}},
        {"effective_on": date(2030, 1, 1)},
    ],
    ids=str,
)
def test_other_content_has_another_hash(changes: dict[str, object]) -> None:
    assert posting(metadata={"payment": "1"}).payload_hash != posting(**changes).payload_hash


def test_actor_and_wording_of_a_posting_are_not_content() -> None:
    told = posting(
        actor="somebody else",
        workflow_id="payment-2",
        description="again",
        counted=Counted(A, [Count("send:USD", 99)]),
    )
    assert told.payload_hash == posting().payload_hash


def test_one_moment_in_two_time_zones_is_the_same_content() -> None:
    east = NEW_YEAR.astimezone(timezone(timedelta(hours=9)))
    hashes = {posting(phase="hold", expires_at=moment).payload_hash for moment in (NEW_YEAR, east)}
    assert len(hashes) == 1


def test_the_hash_is_the_same_in_every_version_of_the_engine() -> None:
    """Stored for ever beside each transfer: a change here makes every repeat of an old posting a conflict."""
    made = posting(
        phase="hold", metadata={"payment": "pay_1"}, expires_at=NEW_YEAR, counted=Counted(A, [Count("send", 100)])
    )
    assert made.payload_hash.hex() == "c4c014d7d1b78cdcc4c011afeba1e361868777be918e8b8e6d39bbee7dbdfd28"
