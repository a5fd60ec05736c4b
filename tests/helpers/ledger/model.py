"""The ledger in plain Python: what each operation must answer, and what must be on each account afterwards.

Independent of the database's way of doing it: no versions, no locks, no SQL. `Model.apply` answers like the engine:
"fresh", "repeat", or the code of the refusal.
"""

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

from engine.domain.limit import Count
from engine.ledger.book import Counted, Leg, Posting, credit, debit

LIMITS = {
    "send": {86_400: 1_500, 604_800: 1_700},
    "send:USD": {2_592_000: 4_000},
    "early": {86_400: 1_200},
    "api_key:a": {86_400: 900},
}
"""Per kind and window; in the little time of a test nothing rolls, so the lowest of a kind decides."""
NOWHERE = 10**12
"""An account that is not there."""
PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Op:
    """One call of the ledger; small numbers everywhere, so that calls meet each other."""

    kind: str
    ref: int
    user: int = 0
    other: int = 1
    amount: int = 1
    fee: int = 0
    target: int = 0
    expires: str = "never"


def counted_of(op: Op, user: int) -> Counted | None:
    """A hold counts all that it holds under two kinds or three, one of them in another unit, and one of an earlier
    version its amount alone; a transfer counts under one or two. What is misplaced counts on an account that has no
    balance row."""
    total = op.amount + op.fee
    if op.kind == "hold":
        amounts = {"send": total, "send:USD": ceil(Fraction(7 * total, 3))} | ({"api_key:a": total} if op.fee else {})
    elif op.kind == "early hold":
        amounts = {"early": op.amount, "send:USD": 2 * op.amount}
    elif op.kind == "transfer":
        amounts = {"internal": op.amount, "api_key:a": op.amount} if op.fee else {"internal": op.amount}
    elif op.kind == "misplaced":
        amounts = {"send": op.amount}
    else:
        return None
    return Counted(user, [Count(kind, amount, LIMITS.get(kind, {})) for kind, amount in amounts.items()])


def posting_of(op: Op, run: str, ids: dict[str, int]) -> Posting:
    """The posting of an operation on the accounts of one run."""
    user, other, outside = ids[f"user{op.user}"], ids[f"user{op.other}"], ids["outside"]
    income, outbox = ids["income"], ids["outbox"]
    hold, total = f"{run}:hold:{op.target}", op.amount + op.fee
    ref, phase, related, legs, expires = f"{run}:{op.ref}", "post", [], [], None
    match op.kind:
        case "deposit" | "wordy":
            legs = [debit(outside, op.amount), credit(user, op.amount)]
        case "misplaced":
            legs = [debit(user, op.amount), credit(outside, op.amount)]
        case "foreign":
            legs = [debit(user, op.amount), credit(ids["dollars"], op.amount)]
        case "nowhere":
            legs = [debit(user, op.amount), credit(NOWHERE, op.amount)]
        case "transfer":
            legs = [debit(user, total), credit(other, op.amount), *([credit(income, op.fee)] if op.fee else [])]
        case "hold" | "early hold":
            ref, phase, legs = f"{run}:hold:{op.ref}", "hold", [debit(user, total), credit(outbox, total)]
            expires = {"never": None, "past": PAST, "future": FUTURE}[op.expires]
        case "incoming":
            ref, phase, legs = f"{run}:hold:{op.ref}", "hold", [debit(outside, op.amount), credit(user, op.amount)]
        case "settle":
            phase, related = "settle", [hold]
            legs = [debit(user, total), credit(outside, op.amount), *([credit(income, op.fee)] if op.fee else [])]
        case "confirm":
            phase, related, legs = "settle", [hold], [debit(outside, op.amount), credit(user, op.amount)]
        case "void" | "expire":
            ref, phase, related = f"{run}:{op.kind}:{op.ref}", op.kind, [hold]
        case "reverse":
            phase, related = "reverse", [f"{run}:{op.target}"]
            legs = [debit(user, op.amount), credit(outside, op.amount)]
    return Posting(
        ref=ref,
        template=op.kind,
        phase=phase,  # type: ignore[arg-type]
        actor="property",
        legs=legs,
        relates_to=related,
        expires_at=expires,
        counted=counted_of(op, outside if op.kind == "misplaced" else user),
        description="x" * 1_001 if op.kind == "wordy" else None,
    )


@dataclass(slots=True)
class Model:
    """Settled and held per account (debit +), what stands, and what counts towards limits."""

    users: frozenset[int]
    frozen: int = 0
    closed: int = 0
    settled: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    promised: dict[int, int] = field(default_factory=dict)
    counted: dict[tuple[int, str], int] = field(default_factory=dict)
    booked: dict[str, Posting] = field(default_factory=dict)
    resolved: set[str] = field(default_factory=set)

    def apply(self, posting: Posting) -> str:
        if len(posting.description or "") > 1_000:
            return "internal_error"
        if posting.ref in self.booked:
            same = _content(self.booked[posting.ref]) == _content(posting)
            return "repeat" if same else "reference_conflict"
        refusal = self._refusal(posting)
        if refusal is None:
            self.book(posting)
        return refusal or "fresh"

    def book(self, posting: Posting) -> None:
        """Make it so, whatever the rules say: also used to add up what a race has let through."""
        self.booked[posting.ref] = posting
        self.resolved.update(posting.relates_to)
        for target in posting.relates_to:
            self._move_hold(self.booked[target], -1)
            if self.booked[target].phase == "hold":
                self._count_what_left(self.booked[target], posting)
        if posting.phase == "hold":
            self._move_hold(posting, +1)
            return
        for leg in posting.legs:
            self.settled[leg.account_id] = self.settled.get(leg.account_id, 0) + leg.amount_msat
        self._count(posting, +1)

    def left_and_held(self, user: int) -> int:
        """All that left with holds of a user that count all they hold, and all that such holds still hold."""
        ends = {target: posting for posting in self.booked.values() for target in posting.relates_to}
        total = 0
        for ref, hold in self.booked.items():
            if hold.template == "hold":
                total += sum(leg.amount_msat for leg in ends.get(ref, hold).legs if leg.account_id == user)
        return total

    def available(self, user: int) -> int:
        return -self.settled.get(user, 0) - self.promised.get(user, 0)

    def above_limits(self) -> list[tuple[int, str]]:
        """Accounts and kinds that count more than may be."""
        return [
            (account_id, kind)
            for (account_id, kind), amount in self.counted.items()
            if kind in LIMITS and amount > min(LIMITS[kind].values())
        ]

    def _move_hold(self, hold: Posting, sign: int) -> None:
        if hold.phase != "hold":
            return
        for leg in hold.legs:
            self.held[leg.account_id] = self.held.get(leg.account_id, 0) + sign * leg.amount_msat
            if leg.amount_msat > 0:
                self.promised[leg.account_id] = self.promised.get(leg.account_id, 0) + sign * leg.amount_msat
        if sign > 0:
            self._count(hold, +1)

    def _count(self, posting: Posting, sign: int, share: Fraction = Fraction(1)) -> None:
        if posting.counted:
            for count in posting.counted.counts:
                key = (posting.counted.account_id, count.kind)
                self.counted[key] = self.counted.get(key, 0) + sign * ceil(count.amount * share)

    def _count_what_left(self, hold: Posting, end: Posting) -> None:
        """In place of all that it held: the share that left, rounded up in every unit."""
        if hold.counted is None:
            return
        held, left = (
            next((abs(leg.amount_msat) for leg in posting.legs if leg.account_id == hold.counted.account_id), 0)
            for posting in (hold, end)
        )
        counts_all = held == hold.counted.counts[0].amount
        if end.phase != "settle" or counts_all:
            self._count(hold, -1)
            self._count(hold, +1, Fraction(left, held))

    def _refusal(self, posting: Posting) -> str | None:
        refusal = None
        if posting.phase in ("settle", "void", "expire"):
            refusal = self._refusal_to_resolve(posting)
        elif posting.phase == "reverse":
            refusal = self._refusal_to_reverse(posting)
        if refusal:
            return refusal
        trial = copy.copy(self)
        trial.settled, trial.held, trial.promised = dict(self.settled), dict(self.held), dict(self.promised)
        trial.counted, trial.booked, trial.resolved = dict(self.counted), dict(self.booked), set(self.resolved)
        trial.book(posting)
        if refusal := self._refusal_to_move(trial, posting):
            return refusal
        if posting.counted:
            if posting.counted.account_id not in self.users:
                return "posting_malformed"
            if trial.above_limits():
                return "limit_exceeded"
        return None

    def _refusal_to_move(self, trial: "Model", posting: Posting) -> str | None:
        """Accounts are looked at in the order of their ids, then the legs as a whole."""
        moved = {leg.account_id for leg in posting.legs}
        for target in posting.relates_to:
            moved |= {leg.account_id for leg in self.booked[target].legs if self.booked[target].phase == "hold"}
        for account in sorted(moved & self.users):
            change = trial.available(account) - self.available(account)
            if account == self.closed:
                return "account_closed"
            if account == self.frozen and change < 0 and posting.phase in ("post", "hold"):
                return "account_locked"
            if trial.available(account) < 0:
                return "insufficient_funds"
        if NOWHERE in moved:
            return "ledger_target_missing"
        return "posting_malformed" if posting.template == "foreign" else None

    def _refusal_to_resolve(self, posting: Posting) -> str | None:
        (target,) = posting.relates_to
        hold = self.booked.get(target)
        if hold is None:
            return "ledger_target_missing"
        if target in self.resolved:
            return "hold_already_resolved"
        if posting.phase == "expire" and hold.expires_at != PAST:
            return "hold_not_due"
        if posting.phase != "settle":
            return None
        if hold.expires_at == PAST:
            return "hold_expired"
        held = {leg.account_id: leg.amount_msat for leg in hold.legs}
        beyond = any(_beyond(leg, held, self.users) for leg in posting.legs)
        unused = not any(leg.account_id in held for leg in posting.legs)
        return "posting_exceeds_target" if beyond or unused else None

    def _refusal_to_reverse(self, posting: Posting) -> str | None:
        (target,) = posting.relates_to
        found = self.booked.get(target)
        if found is None or found.phase not in ("post", "settle"):
            return "ledger_target_missing"
        if target in self.resolved:
            return "already_reversed"
        there = {leg.account_id: leg.amount_msat for leg in found.legs}
        for leg in posting.legs:
            was = there.get(leg.account_id, 0)
            if was * leg.amount_msat >= 0 or abs(leg.amount_msat) > abs(was):
                return "posting_exceeds_target"
        return None


def _beyond(leg: Leg, held: dict[int, int], users: frozenset[int]) -> bool:
    was = held.get(leg.account_id)
    if was is None:
        return leg.account_id in users and leg.amount_msat > 0
    return was * leg.amount_msat < 0 or abs(leg.amount_msat) > abs(was)


def _content(posting: Posting) -> tuple[object, ...]:
    legs = frozenset((leg.account_id, leg.amount_msat) for leg in posting.legs)
    return (posting.template, posting.phase, legs, posting.relates_to, posting.expires_at)
