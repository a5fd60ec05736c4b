"""Compares the hot wallet with its account, coin by coin: what is in flight, what is found, and what is missing.

    books − wallet  =  in flight  +  findings named by transaction or outpoint  +  a rest

    in flight   a deposit that is mined and not booked yet (−), or booked and no longer mined (+); a coin that the pump
                has not recorded yet (−), that came after the cut (+), or that is an immature coinbase (+); a payout
                that is not booked as it is in the chain (`payout.py`)
    found       a transaction of the wallet that the books do not have: what left, change taken off (+)
                a coin that no deposit and no adoption explains (−)
                a coin that the chain has and the wallet has not (+)

A transaction that spends coins of the wallet and is no version of a payout is one by hand: no posting books it, whether
its coins were promised to a payout or not. A finding for which two operators have corrected the books is smaller by
that amount, and none at 0. Pure.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from activities.reconciliation.payout import compare_payouts
from engine.bank.chain.cut import CoinRow, HotBooks, SpendRow, sum_corrected
from engine.clients.bitcoind.answer import CoinCut, Outpoint, Sighting
from engine.contracts.reconciliation import HOT, AccountComparison, Finding, FindingKind, InFlight, Suspect
from engine.domain.deposit import Sight
from engine.domain.money import Sat, sat_to_msat

MOST_NAMED = 100
"""So many findings and items in flight are named one by one. Other findings stay in the rest, other items in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What bitcoind says of coins that it does not list."""

    spends: Mapping[str, Sequence[Outpoint]] = field(default_factory=dict[str, Sequence[Outpoint]])
    """What the wallet's own recent transactions spend."""
    sights: Mapping[str, Sighting] = field(default_factory=dict[str, Sighting])
    unspent: Mapping[Outpoint, bool] = field(default_factory=dict[Outpoint, bool])
    owned: Mapping[str, bool] = field(default_factory=dict[str, bool])
    """By address, whether the wallet has its key."""
    hashes: Mapping[int, str | None] = field(default_factory=dict[int, str | None])
    """Of the blocks at the heights where the coins are recorded."""

    def and_then(self, more: "Asked") -> "Asked":
        """Both together."""
        return Asked(
            spends={**self.spends, **more.spends},
            sights={**self.sights, **more.sights},
            unspent={**self.unspent, **more.unspent},
            owned={**self.owned, **more.owned},
            hashes={**self.hashes, **more.hashes},
        )

    def list_gone(self) -> set[str]:
        """The transactions that are in no block and not in the mempool."""
        return {txid for txid, sight in self.sights.items() if sight.known and sight.kind is Sight.GONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The result of matching. `missing`: bitcoind does not list these coins, and it is not known why."""

    account: AccountComparison
    findings: list[Finding]
    missing: list[CoinRow]


class _Item(NamedTuple):
    """Something in flight: its kind, its outpoint or transaction, and its part of books − wallet."""

    kind: str
    ref: str
    amount_sat: int


class Matcher:
    """One cut, the books of the same moment, and what bitcoind said of missing coins; used once.

    `seen_height` is up to where the pump has recorded the chain of the cut.
    """

    def __init__(self, cut: CoinCut, books: HotBooks, seen_height: int, asked: Asked) -> None:
        self._cut, self._books, self._seen_height, self._asked = cut, books, seen_height, asked
        self._heights = {
            (each.txid, each.vout): cut.tip.height + 1 - each.confirmations if each.confirmations else None
            for each in cut.coins
        }
        self._corrected = sum_corrected(books.corrections)
        self._payouts = {each.txid for each in books.sent}
        self._sending = {
            txid
            for txid in self._payouts & asked.spends.keys()
            if not any(point in self._heights for point in asked.spends[txid])
        }
        self._dead = {each.spender for each in books.spends if not each.in_force} | asked.list_gone()
        self._dead = (self._dead | _list_outdated(books, asked)) - self._sending
        self._in_flight: list[_Item] = []
        self._found: list[Finding] = []
        self._missing: list[CoinRow] = []
        self._new: dict[str, list[CoinRow]] = {}

    def match(self) -> Match:
        """Name all that is known."""
        spends = [each for each in self._books.spends if each.spender not in self._dead]
        self._found += [_spent(each) for each in spends if each.spender not in self._payouts]
        for coin in self._books.coins:
            if coin.deposit is None and coin.txid in self._dead:
                continue
            if self._is_held(coin):
                self._place_held(coin)
            elif coin.spent_by is not None and coin.spent_by not in self._dead:
                self._place_spent(coin)
            else:
                self._place_unlisted(coin)
        self._explain_missing()
        self._compare_payouts(spends)
        found = _less_corrections(self._found, self._corrected)
        return Match(account=self._compare(), findings=found, missing=self._missing)

    def _is_held(self, coin: CoinRow) -> bool:
        """The change of a transaction that has replaced another, which bitcoind does not trust, is the wallet's too."""
        return coin.held or (coin.listed and coin.txid in self._asked.spends)

    def _place_held(self, coin: CoinRow) -> None:
        if coin.deposit is not None:
            if not coin.booked:
                self._in_flight.append(_Item("deposit", coin.name, -coin.amount_sat))
        elif coin.recorded and not coin.gone:
            if not coin.own and not coin.opening:
                self._found.append(_not_in_books(coin))
        elif coin.txid in self._asked.spends:
            self._new.setdefault(coin.txid, []).append(coin)
        elif (height := self._heights[coin.txid, coin.vout]) is None or height > self._seen_height:
            self._in_flight.append(_Item("coin_not_recorded", coin.name, -coin.amount_sat))
        else:
            self._found.append(_not_in_books(coin))

    def _place_spent(self, coin: CoinRow) -> None:
        """Spent by a transaction that counts it as an input, whether the books have the coin or not."""
        if coin.deposit is not None:
            if not coin.booked and not coin.gone:
                self._in_flight.append(_Item("deposit", coin.name, -coin.amount_sat))
        elif not coin.own and not coin.opening and not coin.gone:
            self._found.append(_not_in_books(coin))

    def _place_unlisted(self, coin: CoinRow) -> None:
        if coin.deposit is not None and not coin.booked:
            return
        if coin.booked and (coin.sight != Sight.MINED or coin.block_height is None):
            self._in_flight.append(_Item("deposit_left_chain", coin.name, coin.amount_sat))
        elif _is_counted(coin) or (coin.name in self._corrected and not coin.gone):
            self._missing.append(coin)

    def _explain_missing(self) -> None:
        """Take out of the missing coins what is known of them."""
        by_point = {(each.txid, each.vout): each for each in self._missing}
        for spender, points in self._asked.spends.items():
            if spender in self._payouts and spender not in self._sending:
                continue  # sent after the cut
            spent = [by_point.pop(point) for point in points if point in by_point]
            if spender not in self._payouts and (spent or spender in self._new):
                self._found.append(_spent(_as_row(spender, spent, self._new.get(spender, []))))
        self._missing = []
        for point, coin in by_point.items():
            if coin.block_height is not None and coin.block_height > self._cut.tip.height:
                self._in_flight.append(_Item("coin_after_cut", coin.name, coin.amount_sat))
            elif point in self._asked.unspent:
                self._explain(coin, self._asked.sights[coin.txid], unspent=self._asked.unspent[point])
            else:
                self._missing.append(coin)

    def _compare_payouts(self, spends: Sequence[SpendRow]) -> None:
        """A version is in force if the books have seen it spend its coins, or if bitcoind says so."""
        in_force: dict[str, int | None] = dict.fromkeys(self._sending)
        in_force |= {each.spender: each.spent_sat - each.back_sat for each in spends if each.in_force}
        moving, found = compare_payouts(self._books.sent, in_force)
        self._in_flight += [_Item(each.kind, each.txid, each.amount_sat) for each in moving]
        self._found += found

    def _explain(self, coin: CoinRow, sight: Sighting, *, unspent: bool) -> None:
        has_key = sight.known and self._asked.owned.get(coin.address or "", coin.address is None)
        if sight.kind is Sight.MEMPOOL or self._has_left(coin, sight, unspent=unspent):
            self._in_flight.append(
                _Item("deposit_left_chain" if coin.booked else "coin_left_chain", coin.name, coin.amount_sat)
            )
        elif sight.known and sight.kind is Sight.GONE:
            self._missing.append(coin)
        elif unspent and has_key:
            self._in_flight.append(_Item("coin_not_listed", coin.name, coin.amount_sat))
        elif unspent:
            self._found.append(_without_key(coin, sight))
        else:
            self._found.append(_spent_by_nobody(coin))

    def _has_left(self, coin: CoinRow, sight: Sighting, *, unspent: bool) -> bool:
        """Whether its transaction is nowhere any more, which the pump has not recorded. A wallet may not know of it."""
        if sight.known:
            return sight.kind is Sight.GONE and coin.booked
        hashes, height = self._asked.hashes, coin.block_height
        return not unspent and height is not None and hashes.get(height) != coin.block_hash

    def _compare(self) -> AccountComparison:
        held_sat = sum(each.amount_sat for each in self._cut.coins if each.confirmations > 0 or each.safe)
        held_sat += sum(each.amount_sat for each in self._books.coins if self._is_held(each) and not each.sure)
        place_msat, in_flight = _msat(held_sat), _named(self._in_flight)
        return AccountComparison(
            account=HOT,
            books_msat=self._books.settled_msat,
            place_msat=place_msat,
            in_flight=in_flight,
            difference_msat=self._books.settled_msat - place_msat - sum(each.amount_msat for each in in_flight),
        )


def unexplained(left_msat: int, missing: Sequence[CoinRow], books: HotBooks, named: Collection[str]) -> Finding:
    """The finding for a rest. Missing coins, and corrections that no finding is about, are its suspects."""
    suspects = [
        Suspect(kind="coin", ref=each.name, amount_msat=_msat(each.amount_sat), detail="bitcoind does not list it")
        for each in missing[:MOST_NAMED]
    ] + [
        Suspect(
            kind="correction", ref=each.id, amount_msat=each.amount_msat, detail=f"names {each.subject or 'nothing'}"
        )
        for each in books.corrections
        if each.subject not in named
    ][-MOST_NAMED:]
    return Finding(
        kind=FindingKind.DIFFERENCE,
        account=HOT,
        subject=str(left_msat),
        amount_msat=left_msat,
        detail=f"books − bitcoind = {left_msat:,} msat that no deposit, spend or coin in flight explains",
        suspects=suspects,
    )


def _list_outdated(books: HotBooks, asked: Asked) -> set[str]:
    """Transactions that the books have as spenders of coins which another one spends now."""
    now = {point: spender for spender, points in asked.spends.items() for point in points}
    return {
        each.spent_by
        for each in books.coins
        if each.spent_by is not None and now.get((each.txid, each.vout), each.spent_by) != each.spent_by
    }


def _named(items: Sequence[_Item]) -> list[InFlight]:
    """The largest items by name, the others of each kind in one item."""
    ordered = sorted(items, key=lambda item: (-abs(item.amount_sat), item.ref))
    named = [
        InFlight(kind=each.kind, ref=each.ref, amount_msat=_msat(each.amount_sat)) for each in ordered[:MOST_NAMED]
    ]
    others = ordered[MOST_NAMED:]
    for kind in sorted({each.kind for each in others}):
        amounts = [_msat(each.amount_sat) for each in others if each.kind == kind]
        named.append(InFlight(kind=kind, ref=f"{len(amounts)} others", amount_msat=sum(amounts)))
    return named


def _less_corrections(found: Sequence[Finding], corrected: Mapping[str, int]) -> list[Finding]:
    """What is left of each finding after what two operators have booked for it."""
    left = [replace(each, amount_msat=each.amount_msat + corrected.get(each.subject, 0)) for each in found]
    return [each for each in left if each.amount_msat]


def _as_row(spender: str, spent: Sequence[CoinRow], back: Sequence[CoinRow]) -> SpendRow:
    return SpendRow(
        spender=spender,
        spent_sat=sum(each.amount_sat for each in spent),
        back_sat=sum(each.amount_sat for each in back),
        coins=[each.name for each in spent],
        in_force=True,
    )


def _spent(spend: SpendRow) -> Finding:
    left_sat = spend.spent_sat - spend.back_sat
    words = (
        f"transaction {spend.spender} spends {spend.spent_sat:,} sat of the wallet, and no posting books it: "
        f"{spend.back_sat:,} sat came back, {left_sat:,} sat have left, the miner's fee included"
    )
    suspects = [
        Suspect(kind="spending_transaction", ref=spend.spender, amount_msat=_msat(left_sat), detail="by hand"),
        *(Suspect(kind="coin", ref=each, amount_msat=0, detail="spent by it") for each in spend.coins),
    ]
    return _finding(FindingKind.COIN_SPENT, spend.spender, left_sat, words, suspects)


def _spent_by_nobody(coin: CoinRow) -> Finding:
    words = f"{coin.name} of {coin.amount_sat:,} sat was spent by a transaction that the wallet does not know"
    return _about(FindingKind.COIN_SPENT, coin, coin.amount_sat, words)


def _not_in_books(coin: CoinRow) -> Finding:
    words = f"{coin.name} of {coin.amount_sat:,} sat came to {coin.address or 'us'} and is neither deposit nor change"
    return _about(FindingKind.COIN_NOT_IN_BOOKS, coin, -coin.amount_sat, words)


def _is_counted(coin: CoinRow) -> bool:
    """Whether the books have it without a correction: as a deposit, as capital, or as change of such coins."""
    return coin.booked or coin.opening or (coin.own and not coin.gone)


def _without_key(coin: CoinRow, sight: Sighting) -> Finding:
    why = "has no key for it" if sight.known else "does not know its transaction: it lacks the key, or a rescan"
    words = f"{coin.name} of {coin.amount_sat:,} sat is unspent, and the wallet {why}"
    return _about(FindingKind.COIN_WITHOUT_KEY, coin, coin.amount_sat if _is_counted(coin) else 0, words)


def _about(kind: FindingKind, coin: CoinRow, amount_sat: int, words: str) -> Finding:
    suspect = Suspect(kind="coin", ref=coin.name, amount_msat=_msat(amount_sat), detail=coin.address or "")
    return _finding(kind, coin.name, amount_sat, words, [suspect])


def _finding(kind: FindingKind, subject: str, amount_sat: int, words: str, suspects: list[Suspect]) -> Finding:
    return Finding(
        kind=kind, account=HOT, subject=subject, amount_msat=_msat(amount_sat), detail=words, suspects=suspects
    )


def _msat(amount_sat: int) -> int:
    return sat_to_msat(Sat(amount_sat))
