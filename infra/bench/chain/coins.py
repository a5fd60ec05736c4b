"""Which coins pay: the choice alone, and a whole plan, over a wallet with very many coins."""

import random
import time
from abc import abstractmethod
from collections.abc import Sequence

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Msat, Sat
from engine.domain.withdrawal.coin_choice import Candidate, Target, choose
from engine.domain.withdrawal.plan import Item, plan
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import input_weight, output_script, output_weight
from infra.bench.chain.bystander import foreign_address
from infra.bench.contest import Begin, Contest, Contestant, Work, Wrong, measured
from infra.bench.figures import Goal

MANY = 10_000
MOST_MS = 100.0
_CHANGE = bytes([0, 20]) + bytes(20)
_P2WPKH, _P2TR = 272, 230


class _Chooser(Contestant):
    """Chooses for this many members, each time of other coins, for other amounts and at another rate."""

    components: Sequence[str] = ()

    def __init__(self, what: str, rules: WithdrawalRules, members: int) -> None:
        self.name = f"{what} for {members:,} of {MANY:,} coins"
        self._rules, self._members = rules, members

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - one after the other
        took_ms: list[float] = []
        begin()
        while sum(took_ms) < 1000 * seconds:
            coins, items = _wallet(), [_item(number) for number in range(self._members)]
            rate = random.randint(1_000, 50_000)
            began = time.monotonic()
            left_sat = self._choose(coins, items, rate)
            took_ms.append(1000 * (time.monotonic() - began))
            if left_sat != 0:
                raise Wrong(f"{self.name}: {left_sat} sat are missing or over")
        return measured(took_ms, sum(took_ms) / 1000)

    @abstractmethod
    def _choose(self, coins: Sequence[Candidate], items: Sequence[Item], rate_sat_kvb: int) -> int:
        """Choose. Returns what the coins hold beyond what they are to pay: nothing."""

    async def check(self) -> None:
        """Each choice was checked when it was made."""


class Choice(_Chooser):
    """Coins for these outputs."""

    def _choose(self, coins: Sequence[Candidate], items: Sequence[Item], rate_sat_kvb: int) -> int:
        paid_sat = sum(each.amount_sat for each in items)
        target = Target(
            outputs_sat=paid_sat,
            outputs_weights=tuple(output_weight(each.script) for each in items),
            change_weight=output_weight(_CHANGE),
            change_input_weight=input_weight(_CHANGE),
            rate_sat_kvb=rate_sat_kvb,
            long_term_rate=self._rules.coins.long_term_rate,
            useful_change_sat=self._rules.coins.useful_change_sat,
            max_inputs=self._rules.coins.max_inputs,
        )
        found = choose(coins, target)
        if found is None:
            raise Wrong("no coins were found")
        return sum(each.amount_sat for each in found.coins) - paid_sat - found.fee_sat - found.change_sat


class Plan(_Chooser):
    """A payout with its shares: several choices."""

    def _choose(self, coins: Sequence[Candidate], items: Sequence[Item], rate_sat_kvb: int) -> int:
        made = plan(items, coins, rate_sat_kvb, self._rules, _CHANGE, randrange=random.randrange)
        if len(made.members) != len(items):
            raise Wrong("somebody was left out")
        paid_sat = sum(each.paid_sat for each in made.members)
        return sum(each.amount_sat for each in made.inputs) - paid_sat - made.fee_sat - made.change_sat


def choices(rules: WithdrawalRules) -> Contest:
    """For a lone payout, and for a full one."""
    alone, full = (Choice("choice", rules, members) for members in (1, rules.max_outputs))
    goals = [Goal(each.name, measure=measure, at_most=MOST_MS) for each in (alone, full) for measure in ("p50", "p99")]
    whole = Plan("plan", rules, rules.max_outputs)
    goals += [Goal(whole.name, measure=measure) for measure in ("p50", "p99")]
    return Contest("choice of coins", "choices/s", [alone, full, whole], goals)


def _wallet() -> list[Candidate]:
    """Coins of both kinds, from dust to a whole bitcoin, most of them small."""
    return [
        Candidate(
            Outpoint(txid=Txid(f"{number:064x}"), vout=0),
            Sat(int(10 ** random.uniform(3, 8))),
            random.choice((_P2WPKH, _P2TR)),
        )
        for number in range(MANY)
    ]


def _item(number: int) -> Item:
    return Item(
        id=f"wd_{number}",
        script=output_script(foreign_address()),
        amount_sat=Sat(random.randint(20_000, 2_000_000)),
        fee_from="balance",
        service_fee_msat=Msat(0),
        max_fee_sat=Sat(50_000),
    )
