"""What the books must say of deposits, worked out from the truth of the chain and nothing else. Amounts in satoshi.

The bank takes one look after the other, and books when it gets to it. So the oracle knows the chain as it was at the
last look, and for each deposit what was booked when the books were last at rest.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.clients.bitcoind.answer import Sighting
from engine.domain.deposit import Sight

MINIMUM, FEE, MOST = 1_000, 100, 100_000_000
"""The smallest amount that is credited, our flat fee, and the limit of an account's day."""
_DEPTHS = ((1_000_000, 1), (100_000_000, 3))
_DEEPEST = 6


def required(amount: int) -> int:
    """Confirmations before it is booked."""
    return next((depth for most, depth in _DEPTHS if amount <= most), _DEEPEST)


@dataclass(eq=False)
class Person:
    """A user."""

    account: str
    wallet: str
    ledger_account: int
    available: int = 0
    is_open: bool = True
    is_locked: bool = False


@dataclass
class Booking:
    """How an output stands in the books."""

    place: str
    amount: int
    net: int = 0
    fee: int = 0
    repaid: list[int] = field(default_factory=list)
    is_released: bool = False


@dataclass(eq=False)
class Deposit:
    """A row, by its id."""

    id: str
    line: tuple[int, str]
    """The payment and the address: what stands in for each other."""
    outpoint: tuple[str, int]
    amount: int
    owner: Person | None
    below: bool
    booked: Booking | None = None
    was_charged: bool = False
    owed: list[int] = field(default_factory=list)


class Oracle:
    """All people and all deposits."""

    def __init__(self) -> None:
        self.people: list[Person] = []
        self.deposits: dict[str, Deposit] = {}
        self.seen: dict[str, Sighting] = {}
        self.tip = 0
        self.lost = 0
        """What nobody owes: forgiven, or spent by somebody whose account is closed."""

    def advance(self, deposit: Deposit) -> None:
        """The books follow the chain."""
        booked = deposit.booked
        if booked is not None and not self.is_mined(deposit):
            self._take_back(deposit, booked)
        if deposit.owner is not None and not deposit.owner.is_open and self._is_touched(deposit):
            deposit.owner = None
        if deposit.booked is None and self.depth(deposit) >= required(deposit.amount):
            self._book(deposit)

    def release(self, deposit: Deposit, to: Person) -> None:
        """Two operators move it from where it is parked to a wallet."""
        booked = deposit.booked
        assert booked is not None
        deposit.owner, deposit.was_charged = to, True
        booked.is_released = True
        self._credit(deposit, booked)

    def is_mined(self, deposit: Deposit) -> bool:
        return self.seen[deposit.outpoint[0]].kind is Sight.MINED

    def is_alive(self, deposit: Deposit) -> bool:
        return self.seen[deposit.outpoint[0]].kind is not Sight.GONE

    def depth(self, deposit: Deposit) -> int:
        block = self.seen[deposit.outpoint[0]].block
        return 0 if block is None else self.tip - block.height + 1

    def incoming(self, person: Person) -> int:
        """At rest: what is promised to this person and not spendable yet."""
        return sum(
            each.amount
            for each in self.deposits.values()
            if each.owner is person and each.booked is None and self.is_alive(each) and not each.below
        )

    def totals(self) -> Counter[str]:
        """Of the accounts of the house: debit +."""
        totals = Counter({"exp:loss": self.lost + sum(sum(each.owed) for each in self.deposits.values())})
        for each in self.booked():
            totals["asset:hot"] += each.amount
            if each.place == "wallet" or each.is_released:
                totals["income:deposit-fee"] -= each.fee
            elif each.place == "pending":
                totals["liab:deposits-pending"] -= each.amount
            else:
                totals["suspense:in"] -= each.amount
        return totals

    def booked(self) -> Iterable[Booking]:
        return [each.booked for each in self.deposits.values() if each.booked is not None]

    def _is_touched(self, deposit: Deposit) -> bool:
        """Whether the books look for its owner now: it becomes incoming, or is booked."""
        return deposit.booked is None and self.is_alive(deposit) and not (deposit.below and self.depth(deposit) == 0)

    def _book(self, deposit: Deposit) -> None:
        owner = deposit.owner
        if owner is None or not owner.is_open:
            deposit.owner = None
            deposit.booked = Booking("suspense", deposit.amount)
        elif deposit.below or (deposit.amount > MOST and not deposit.was_charged):
            deposit.booked = Booking("pending", deposit.amount)
        else:
            deposit.booked = Booking("wallet", deposit.amount)
            self._credit(deposit, deposit.booked)
        deposit.was_charged = deposit.booked.place == "wallet"

    def _credit(self, deposit: Deposit, booked: Booking) -> None:
        """Net of our fee. What is owed for it is repaid first, each debt as a whole."""
        assert deposit.owner is not None
        booked.fee = min(FEE, deposit.amount)
        left = deposit.amount - booked.fee
        still_owed = []
        for debt in deposit.owed:
            if debt <= left:
                left -= debt
                booked.repaid.append(debt)
            else:
                still_owed.append(debt)
        deposit.owed, booked.net = still_owed, left
        deposit.owner.available += left

    def _take_back(self, deposit: Deposit, booked: Booking) -> None:
        """What its owner has no longer is owed; what an earlier credit had repaid is owed again."""
        deposit.booked = None
        if booked.place != "wallet" and not booked.is_released:
            return
        owner, repaid = deposit.owner, sum(booked.repaid)
        assert owner is not None
        if not owner.is_open:
            self.lost += booked.net + repaid
            return
        paid_back = min(booked.net, owner.available)
        owner.available -= paid_back
        if owed := repaid + booked.net - paid_back:
            deposit.owed.append(owed)
            owner.is_locked = True
