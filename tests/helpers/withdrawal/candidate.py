"""Coins that nobody has, to choose from."""

from collections.abc import Sequence

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.coin_choice import Candidate


def coin(number: int, amount_sat: int, weight: int = 272) -> Candidate:
    """Another number is another coin."""
    return Candidate(Outpoint(txid=Txid(f"{number:064x}"), vout=number % 3), Sat(amount_sat), weight)


def coins(*amounts_sat: int, weight: int = 272) -> list[Candidate]:
    """One for each amount."""
    return [coin(number, amount_sat, weight) for number, amount_sat in enumerate(amounts_sat)]


def held_sat(chosen: Sequence[Candidate]) -> int:
    """What they hold together."""
    return sum(each.amount_sat for each in chosen)
