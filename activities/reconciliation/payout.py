"""Compares what payouts have taken out of the hot wallet with what the books have of them.

A version that is in force, in a block or in the mempool, takes its outputs and its fee. The books have one amount for
the payout, whichever version that is. While the payout is not over, what differs is about to be booked, so it is in
flight; once it is over, that is a finding.

    payout_not_booked     +   a version is in force, and its posting follows
    payout_not_in_chain   −   booked, and no version is in force: it was evicted, or a reorganisation has taken it out
    payout_fee            ±   another version is in force than the one whose fee is booked

A transaction fixes what it spends and pays. If it takes another amount from the wallet than its plan says, one of its
outputs is the wallet's own: then the books have less than the wallet. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from engine.bank.withdrawal.sent import SentVersion
from engine.contracts.reconciliation import HOT, Finding, FindingKind, Suspect
from engine.domain.money import Sat, sat_to_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A payout in flight. `amount_sat` is its part of books − wallet."""

    kind: str
    txid: str
    amount_sat: int


def compare_payouts(
    sent: Sequence[SentVersion], in_force: Mapping[str, int | None]
) -> tuple[list[Moving], list[Finding]]:
    """`in_force`: transactions of which the wallet knows, with the satoshi that they took from it where known."""
    moving: list[Moving] = []
    found: list[Finding] = []
    for _, each in groupby(sorted(sent, key=lambda one: (one.payout, one.number)), key=lambda one: one.payout):
        versions = list(each)
        alive = [one for one in versions if one.txid in in_force]
        found += [_paid_again(one) for one in alive[:-1]]
        last = alive[-1] if alive else versions[-1]
        found += [_not_as_planned(one, took_sat) for one in alive if (took_sat := in_force[one.txid]) is not None]
        item = _compare(last, is_alive=bool(alive))
        if last.over:
            found.append(_not_as_booked(last, item))
        else:
            moving.append(item)
    return [each for each in moving if each.amount_sat], [each for each in found if each.amount_msat]


def _compare(version: SentVersion, *, is_alive: bool) -> Moving:
    if not is_alive:
        return Moving(kind="payout_not_in_chain", txid=version.txid, amount_sat=-version.booked_sat)
    kind = "payout_fee" if version.booked_sat else "payout_not_booked"
    return Moving(kind=kind, txid=version.txid, amount_sat=version.leaves_sat - version.booked_sat)


def _paid_again(version: SentVersion) -> Finding:
    words = (
        f"transaction {version.txid}, version {version.number} of {version.payout}, takes {version.leaves_sat:,} sat "
        "from the wallet beside another version of it: its members are paid twice"
    )
    return _finding(FindingKind.COIN_SPENT, version, version.leaves_sat, words)


def _not_as_planned(version: SentVersion, took_sat: int) -> Finding:
    words = (
        f"transaction {version.txid}, version {version.number} of {version.payout}, takes {took_sat:,} sat from the "
        f"wallet and should take {version.leaves_sat:,} sat: one of its outputs is the wallet's own"
    )
    return _finding(FindingKind.AMOUNT_DIFFERS, version, took_sat - version.leaves_sat, words)


def _not_as_booked(version: SentVersion, item: Moving) -> Finding:
    words = (
        f"{version.payout} is over and booked with {version.booked_sat:,} sat, and its transaction {version.txid} has "
        f"taken {version.booked_sat + item.amount_sat:,} sat from the wallet"
    )
    return _finding(FindingKind.AMOUNT_DIFFERS, version, item.amount_sat, words)


def _finding(kind: FindingKind, version: SentVersion, amount_sat: int, words: str) -> Finding:
    amount_msat = sat_to_msat(Sat(amount_sat))
    suspect = Suspect(kind="payout", ref=version.payout, amount_msat=amount_msat, detail=f"version {version.number}")
    return Finding(
        kind=kind, account=HOT, subject=version.txid, amount_msat=amount_msat, detail=words, suspects=[suspect]
    )
