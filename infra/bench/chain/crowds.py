"""Withdrawals together, alone and by hand: one contest, and what each of them has cost."""

from dataclasses import dataclass, field

from infra.bench.chain.by_hand import ByHand
from infra.bench.chain.deposits import Bank
from infra.bench.chain.withdrawals import AMOUNT_SAT, Payouts
from infra.bench.contest import Contest
from infra.bench.figures import Goal
from infra.bench.report import Fact


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are of each kind, in each round."""

    rounds: int
    crowd: int
    alone: int


WHOLE = Size(rounds=2, crowd=1_000, alone=100)
QUICK = Size(rounds=1, crowd=200, alone=20)


@dataclass(slots=True)
class Crowds:
    """The contestants of a run, for the facts that their turns leave behind."""

    together: Payouts
    alone: Payouts
    by_hand: ByHand
    contest: Contest = field(init=False)

    def __post_init__(self) -> None:
        goals = [Goal(self.together.name, measure="whole"), Goal(self.together.name, self.alone.name, "cpu")]
        self.contest = Contest("withdrawals at once", "withdrawals/s", [self.together, self.alone, self.by_hand], goals)

    def facts(self) -> list[Fact]:
        """Size and fee of one withdrawal, and what batches save."""
        found = [each.spent.facts(each.name) for each in (self.together, self.alone, self.by_hand)]
        costs = [each[1].value for each in found]
        saved = [Fact("fee together, of the fee alone", costs[0] / costs[1], "×")]
        saved.append(Fact("fee together, of the fee by sendtoaddress", costs[0] / costs[2], "×"))
        together = f"until all were confirmed after their block, {self.together.name}"
        return [fact for facts in found for fact in facts] + saved + [Fact(together, self.together.confirmed_s, "s")]


def crowds(bank: Bank, size: Size) -> Crowds:
    """Together, alone and by hand."""
    return Crowds(
        Payouts(bank, size.crowd, alone=False),
        Payouts(bank, size.alone, alone=True),
        ByHand(bank, size.alone, AMOUNT_SAT),
    )
