"""Looks at a node until what it has and what the books have agree, or a rest is the same twice.

A look lists all that the node remembers, and from then on follows what ends. Then it makes cuts: the node's balances,
all that had ended by then, the books, and what was booked since. Only the balances, a few calls, must be of one moment.
A cut without a rest is the answer. A rest must be the same in two quiet cuts, and again in another look, before an
operator is called. A node that is never at rest for these few calls is reported as moving, not as correct.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from activities.part import list_parts
from activities.reconciliation import channel, matching
from engine.bank.agreement import AgreedChannel
from engine.bank.reconciliation import BooksCut, Counterparts, NewCase, Pending, read_counterparts
from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.client import LndNode, NodePaymentStatus
from engine.clients.lnd.history import LndHistory, News
from engine.contracts.reconciliation import AccountComparison, Finding
from engine.domain.ids import PaymentHash
from engine.ledger.database import Pool

_LOOKS = 3
_CUTS = 20
_PAUSE_S = 0.2
_MANY = 100
"""The most findings that are named one by one. Anything beyond them stays in the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """Node and books at one moment, matched by name. `quiet` when nothing moved while the node was read."""

    books: BooksCut
    held: NodeBalances
    known: Counterparts
    match: matching.Match
    quiet: bool


@dataclass(frozen=True, slots=True)
class Look:
    """The result of looking. `moving`: quiet cuts or looks did not agree, so nothing can be said about the node."""

    accounts: list[AccountComparison]
    findings: list[Finding]
    left: dict[str, int]
    held: NodeBalances
    pending: list[Pending]
    moving: bool


class Looker:
    """Bound to one node."""

    def __init__(self, lnd: LndNode, history: LndHistory, pool: Pool) -> None:
        self._lnd = lnd
        self._history = history
        self._pool = pool

    async def look_often(self, since: datetime, agreed: Sequence[AgreedChannel], explained: Sequence[NewCase]) -> Look:
        before: Look | None = None
        for _ in range(_LOOKS):
            look = await self._look(since, agreed, explained)
            if not look.moving and (not look.left or (before is not None and look.left == before.left)):
                return look
            before = None if look.moving else look
        return replace(look, moving=True)

    async def _look(self, since: datetime, agreed: Sequence[AgreedChannel], explained: Sequence[NewCase]) -> Look:
        """List the node's memory once. Then cut until one cut leaves no rest, or two quiet ones leave the same.

        The list begins with the next full second after `since`. What was made before that is looked up one by one.
        """
        since_s = int(since.timestamp()) + 1
        seen: list[dict[str, int]] = []
        async with self._history.follow() as news:
            listed = matching.Memory(
                paid_out=await self._history.list_paid_out(since_s),
                paid_in=await self._history.list_paid_in(since_s),
                now_s=int(time.time()),
            )
            for _ in range(_CUTS):
                cut = await self._cut(since, listed, news)
                findings = [*cut.match.findings, *await self._look_for(cut)][:_MANY]
                in_flight = cut.match.in_flight
                accounts = matching.compare(self._lnd.name, cut.books, cut.held, in_flight, findings)
                if matching.rests(accounts, findings):
                    in_flight = [*in_flight, *await list_parts(self._lnd, cut.known.pending.values())]
                    accounts = matching.compare(self._lnd.name, cut.books, cut.held, in_flight, findings)
                left = matching.rests(accounts, findings)
                if left:
                    findings += await self._name_channels(agreed, cut.held, left)
                    left = matching.rests(accounts, findings)
                    whole = [*findings, *matching.standing(explained, findings)]
                    if left and not matching.rests(accounts, whole):
                        findings, left = whole, {}
                look = Look(accounts, findings, left, cut.held, list(cut.known.pending.values()), moving=False)
                if not left or (cut.quiet and left in seen):
                    return look
                seen += [left] if cut.quiet else []
                await asyncio.sleep(_PAUSE_S)
        return replace(look, moving=True)

    async def _cut(self, since: datetime, listed: matching.Memory, news: News) -> _Cut:
        """Read the node's balances and what had ended by then, then the books and what had ended by that time."""
        heard = news.count()
        held = await self._lnd.read_balances()
        memory = listed.and_then(news)
        quiet = held.steady and heard == news.count()
        async with self._pool.acquire() as conn:
            books, known = await read_counterparts(conn, self._lnd.name, since, matching.refs_of(memory))
        match = matching.match(self._lnd.name, memory, known, listed.and_then(news))
        return _Cut(books=books, held=held, known=known, match=match, quiet=quiet)

    async def _name_channels(
        self, agreed: Sequence[AgreedChannel], held: NodeBalances, left: dict[str, int]
    ) -> list[Finding]:
        """The part of the rest that closed channels and changed fee rates explain."""
        gone = channel.list_gone(agreed, held.channels)
        ends = await self._history.list_ends(gone) if gone else []
        found = channel.name_ends(self._lnd.name, agreed, ends, left)
        beside = {account: left_msat - _sum_on(account, found) for account, left_msat in left.items()}
        return [*found, *channel.name_fees(self._lnd.name, agreed, held.channels, beside)]

    async def _look_for(self, cut: _Cut) -> list[Finding]:
        """Ask the node about each reference that is booked and was not in its list."""
        missing = []
        for ref in cut.match.unmatched[:_MANY]:
            payment_hash = PaymentHash(ref.split(":")[1])
            if ref == matching.settle_ref(payment_hash):
                paid = await self._lnd.find_payment(payment_hash)
                done = paid is not None and paid.status is NodePaymentStatus.SUCCEEDED
            else:
                received = await self._lnd.find_invoice(payment_hash)
                done = received is not None and received.settled
            if not done:
                missing.append(matching.not_at_node(self._lnd.name, ref, cut.known.booked[ref]))
        return missing


def _sum_on(account: str, findings: Sequence[Finding]) -> int:
    return sum(finding.amount_msat for finding in findings if finding.account == account)
