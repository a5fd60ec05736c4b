"""The postings of a deposit: pure, so every rule is tried without a database, and their content never changes."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.deposit import Place
from engine.domain.errors import InvariantBroken
from engine.domain.fee import Charge
from engine.domain.limit import Count
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.ledger.book import Posting
from engine.ledger.postings import deposit as postings
from engine.ledger.postings.deposit import reversal_ref
from tests.helpers.ledger.posting import ALICE, IDS, deposit

pytestmark = pytest.mark.property

OUTPOINT = f"chain:{'ef' * 32}:1"
SEEN = f"{OUTPOINT}:seen"
FEE = Charge(fee_msat=Msat(500_000), version=3, level=2)
COUNTS = [Count("deposit", 50_000_000, {86_400: 60_000_000})]


def booked(place: Place, amount_msat: int = 50_000_000, **changed: Any) -> Posting:
    known: dict[str, Any] = {"owner": ALICE, "charge": FEE, "repaid_msat": Msat(0), "number": 1, "hold": None}
    return postings.booked(IDS, deposit(amount_msat), place=place, **known | changed)


def released(place: Place, amount_msat: int = 50_000_000, charge: Charge | None = FEE) -> Posting:
    return postings.released(
        IDS, deposit(amount_msat), place=place, owner=ALICE, charge=charge, number=1, actor="acct_b"
    )


def taken_back(of: Posting, owner_pays_msat: int, owner: int | None = ALICE) -> Posting:
    return postings.taken_back(
        deposit(),
        IDS,
        of=of.ref,
        settled={leg.account_id: leg.amount_msat for leg in of.legs},
        owner=owner,
        owner_pays_msat=Msat(owner_pays_msat),
    )


def moves(*made: Posting) -> dict[int, int]:
    """What each account has more (debit) or less (credit) after them; accounts that nothing moved are left out."""
    total: dict[int, int] = {}
    for leg in (leg for posting in made for leg in posting.legs):
        total[leg.account_id] = total.get(leg.account_id, 0) + leg.amount_msat
    return {account: amount for account, amount in total.items() if amount}


EXAMPLES: dict[str, tuple[Posting, str, str]] = {
    "seen": (
        postings.seen(IDS, deposit(), owner=ALICE, number=1, counts=COUNTS),
        "seen deposit_seen hold",
        "1d287051f8a97ecc4ca3794e2ae62b1569c69749e9628910cb9cc00eed0f1786",
    ),
    "seen again": (
        postings.seen(IDS, deposit(), owner=ALICE, number=2),
        "seen:2 deposit_seen hold",
        "1d287051f8a97ecc4ca3794e2ae62b1569c69749e9628910cb9cc00eed0f1786",
    ),
    "dropped": (
        postings.dropped(deposit(), hold=SEEN, number=1),
        "drop deposit_dropped void",
        "3e4d236776f6dff67e5c971904ead72c11bd47aa383a7f4449f57b99db718b64",
    ),
    "dropped again": (
        postings.dropped(deposit(), hold=f"{SEEN}:2", number=2),
        "drop:2 deposit_dropped void",
        "a883eb93b97a946e617bfdc5fab30941698081c004698a874c605d5076c766c5",
    ),
    "credited": (
        booked("wallet", hold=SEEN),
        "conf:1 deposit_credited settle",
        "d9fda5e9cd0502169ebeb82a88d4401ea96545084d5647259b51a05baea3e407",
    ),
    "credited without a hold": (
        booked("wallet", counts=COUNTS),
        "conf:1 deposit_credited post",
        "06f5380ce7b1a7f9b26effbb78e4fd2edfe16b4d47a31e7c874cc1c39a018b35",
    ),
    "credited again": (
        booked("wallet", number=2, repaid_msat=Msat(20_000_000), hold=f"{SEEN}:2"),
        "conf:2 deposit_credited settle",
        "09c1ea857f3d3e5f845c7f311f032cf4005f8aa6a9da60e8c052fad0581a50c4",
    ),
    "parked": (
        booked("pending"),
        "conf:1 deposit_parked post",
        "da39f94574170ece4c539dae38f66cb98472f504230fe6d66d759aa4c1127be6",
    ),
    "for nobody": (
        booked("suspense", owner=None),
        "conf:1 deposit_parked post",
        "820e0f9478d0876d4f61ff2d0666f5340a758ec59ba75dbc3a71718d29dc3c33",
    ),
    "released": (
        released("pending"),
        "release:1 deposit_released post",
        "d7f051008bb4eebb62154a10eb173853d5fd1f4f9c87b005172297a27ae2b342",
    ),
    "attributed": (
        released("suspense"),
        "release:1 deposit_released post",
        "317482f34f22991a8664611a1fda5bdd20c5f1612cef15c7d7a444de60f21f5c",
    ),
    "taken back": (
        taken_back(booked("wallet"), 49_500_000),
        "reorg:1 deposit_taken_back reverse",
        "fe7babaa048bb20cdce86e56fa7c7edf7f4a8c2f15883d9cd206b3cdbd95632c",
    ),
    "taken back after it was spent": (
        taken_back(booked("wallet"), 29_500_000),
        "reorg:1 deposit_taken_back reverse",
        "0974a614a2c5f6fb0e0136a047332b7b5d69593fb8d74317c55d0a1d98797e91",
    ),
    "a release taken back": (
        taken_back(released("pending"), 49_500_000),
        "reorg:1:release deposit_taken_back reverse",
        "6a557e5b069a83bf8000a437777bfcc714033931a67711f2d341f278a18de818",
    ),
}


@pytest.mark.parametrize("event", EXAMPLES)
def test_a_posting_is_to_the_byte_what_it_always_was(event: str) -> None:
    posting, words, payload_hash = EXAMPLES[event]
    assert f"{posting.ref} {posting.template} {posting.phase}" == f"{OUTPOINT}:{words}"
    assert posting.metadata["deposit"] == "dep_1"
    assert posting.payload_hash.hex() == payload_hash


amounts = st.integers(1, MAX_AMOUNT_MSAT // 1_000).map(lambda sat: sat * 1_000)
PLACES: tuple[Place, ...] = ("wallet", "pending", "suspense")


@st.composite
def bookings(draw: st.DrawFn) -> tuple[int, Place, int, int]:
    """Amount, place, fee and what is repaid of it."""
    amount = draw(amounts)
    fee = draw(st.one_of(st.just(0), st.just(amount), st.integers(0, amount)))
    repaid = draw(st.one_of(st.just(0), st.just(amount - fee), st.integers(0, amount - fee)))
    return amount, draw(st.sampled_from(PLACES)), fee, repaid


@settings(deadline=None)
@given(amounts, st.integers(1, 10**6))
def test_an_incoming_deposit_is_promised_to_its_owner_alone(amount: int, number: int) -> None:
    made = postings.seen(IDS, deposit(amount), owner=ALICE, number=number, counts=COUNTS)
    assert moves(made) == {IDS.hot: amount, ALICE: -amount}
    assert made.counted is not None
    assert (made.counted.account_id, made.phase) == (ALICE, "hold")
    gone = postings.dropped(deposit(amount), hold=made.ref, number=number)
    assert (list(gone.relates_to), gone.legs) == ([made.ref], ())


@settings(deadline=None)
@given(bookings(), st.booleans())
def test_all_of_a_deposit_is_in_the_hot_wallet_and_belongs_to_somebody(
    case: tuple[int, Place, int, int],
    is_held: bool,  # noqa: FBT001 - drawn
) -> None:
    amount, place, fee, repaid = case
    charge = Charge(fee_msat=Msat(fee), version=1, level=0)
    hold = SEEN if is_held else None
    counts = COUNTS if place == "wallet" else []
    made = booked(place, amount, charge=charge, repaid_msat=Msat(repaid), hold=hold, counts=counts)
    owners = {
        "wallet": {ALICE: fee + repaid - amount, IDS.deposit_fees: -fee, IDS.loss: -repaid},
        "pending": {IDS.deposits_pending: -amount},
        "suspense": {IDS.suspense_in: -amount},
    }
    expected = {IDS.hot: amount, **owners[place]}
    assert moves(made) == {account: moved for account, moved in expected.items() if moved}
    assert sum(moves(made).values()) == 0
    assert (made.phase, list(made.relates_to)) == (("settle", [SEEN]) if is_held else ("post", []))
    assert (made.counted is None) == (is_held or ALICE not in moves(made))
    assert ("fee_msat" in made.metadata) == (place == "wallet" and fee > 0)


@settings(deadline=None)
@given(bookings(), st.data())
def test_a_reversal_takes_all_out_of_the_hot_wallet_and_only_what_is_there_from_the_owner(
    case: tuple[int, Place, int, int], data: st.DataObject
) -> None:
    amount, place, fee, repaid = case
    charge = Charge(fee_msat=Msat(fee), version=1, level=0)
    made = booked(place, amount, charge=charge, repaid_msat=Msat(repaid))
    credited = -moves(made).get(ALICE, 0)
    pays = data.draw(st.integers(0, credited))
    back = taken_back(made, pays)
    lost = {IDS.loss: credited - pays} if credited > pays else {}
    assert moves(made, back) == {**lost, **({ALICE: pays - credited} if credited > pays else {})}
    assert (back.phase, list(back.relates_to)) == ("reverse", [made.ref])
    if credited:
        with pytest.raises(InvariantBroken, match="cannot be taken back"):
            taken_back(made, credited + 1)


@settings(deadline=None)
@given(amounts, st.sampled_from(PLACES[1:]), st.data())
def test_a_released_deposit_leaves_its_place_whole(amount: int, place: Place, data: st.DataObject) -> None:
    fee = data.draw(st.integers(0, amount))
    charge = Charge(fee_msat=Msat(fee), version=1, level=0)
    parked, moved_on = booked(place, amount), released(place, amount, charge)
    expected = {IDS.hot: amount, ALICE: fee - amount, IDS.deposit_fees: -fee}
    assert moves(parked, moved_on) == {account: moved for account, moved in expected.items() if moved}
    credited = amount - fee
    both = (taken_back(moved_on, credited), taken_back(parked, 0))
    assert moves(parked, moved_on, *both) == {}


def test_nobody_is_credited_without_an_owner() -> None:
    with pytest.raises(InvariantBroken, match="has no owner"):
        booked("wallet", owner=None)


@pytest.mark.parametrize("tail", ["conf:1", "conf:12", "release:3"])
def test_each_reversal_has_a_reference_of_its_own(tail: str) -> None:
    kind, number = tail.split(":")
    expected = f"{OUTPOINT}:reorg:{number}" + (":release" if kind == "release" else "")
    assert reversal_ref(f"{OUTPOINT}:{tail}") == expected


@dataclass
class Chain:
    """A deposit that is credited, spent, taken back and credited again, as often as the test likes."""

    amount: int
    fee: int
    owned: int = 0
    """What the owner has of it."""
    spent: int = 0
    """What the owner has spent, of this or of other money."""
    owed: list[int] = field(default_factory=list)
    made: list[Posting] = field(default_factory=list)
    number: int = 0

    def credit(self) -> None:
        """It repays receivables as a whole, the oldest first. What it repays is owed again when it is taken back."""
        room, repaid = self.amount - self.fee, 0
        for owed in list(self.owed):
            if repaid + owed <= room:
                repaid += owed
                self.owed.remove(owed)
        self.number += 1
        charge = Charge(fee_msat=Msat(self.fee), version=1, level=0)
        posting = booked("wallet", self.amount, charge=charge, repaid_msat=Msat(repaid), number=self.number)
        self.made.append(posting)
        self.owned += self.amount - self.fee - repaid

    def spend(self, part: int) -> None:
        """A part, in thousandths."""
        going = self.owned * part // 1_000
        self.owned -= going
        self.spent += going

    def take_back(self) -> None:
        """Out of what is there; the rest is owed."""
        credited = -moves(self.made[-1]).get(ALICE, 0)
        pays = min(credited, self.owned)
        self.made.append(taken_back(self.made[-1], pays))
        self.owned -= pays
        if again := credited - pays - moves(self.made[-2]).get(IDS.loss, 0):
            self.owed.append(again)


@settings(deadline=None)
@given(amounts, st.integers(0, 1_000), st.lists(st.integers(0, 1_000), max_size=8), st.booleans())
def test_however_often_it_comes_back_the_loss_is_what_is_owed(
    amount: int,
    fee_part: int,
    spends: list[int],
    ends_credited: bool,  # noqa: FBT001 - drawn
) -> None:
    chain = Chain(amount, amount * fee_part // 1_000)
    for part in spends:
        chain.credit()
        chain.spend(part)
        chain.take_back()
    if ends_credited:
        chain.credit()
    found = moves(*chain.made)
    assert found.get(IDS.loss, 0) == sum(chain.owed)
    assert found.get(IDS.hot, 0) == (amount if ends_credited else 0)
    assert found.get(IDS.deposit_fees, 0) == (-chain.fee if ends_credited else 0)
    assert -found.get(ALICE, 0) == chain.owned + chain.spent
    assert sum(found.values()) == 0
    assert len({posting.ref for posting in chain.made}) == len(chain.made)
    if ends_credited and chain.fee == 0:
        # All that is owed fits into the amount: nobody can spend more of a deposit than it brought.
        assert chain.owed == []
