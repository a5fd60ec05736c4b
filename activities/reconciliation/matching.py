"""Compares a node with its accounts, item by item: which part of a difference is in flight, and which is unexplained.

    books − node  =  in flight  +  findings named by hash  +  a rest

Only what is known by name counts as in flight: a payment that the node has made and whose workflow is about to book it,
a receipt of the last minutes, the commitment fees of HTLCs. An amount is never accepted only because it fits. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bank.reconciliation import BooksCut, Counterparts
from engine.bank.reconciliation import NewCase as Case
from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.history import News, NodeChange, PaidIn, PaidOut
from engine.contracts.reconciliation import AccountComparison, Finding, FindingKind, InFlight, Suspect
from engine.domain.ids import NodeName
from engine.ledger import chart
from engine.ledger.postings.receipt import receive_ref

RECEIPT_GRACE_S = 300
"""How long after the node has settled an invoice its credit counts as in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the node remembers, and when it was asked."""

    paid_out: Sequence[PaidOut]
    paid_in: Sequence[PaidIn]
    now_s: int

    def and_then(self, news: News) -> "Memory":
        """The same memory with what has ended since the lists were read."""
        paid_out = {paid.payment_hash: paid for paid in self.paid_out} | news.paid_out
        paid_in = {paid.payment_hash: paid for paid in self.paid_in} | news.paid_in
        return Memory(paid_out=list(paid_out.values()), paid_in=list(paid_in.values()), now_s=self.now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The result of matching. `unmatched` are references booked on the channels that the node did not list."""

    in_flight: list[InFlight]
    findings: list[Finding]
    unmatched: list[str]


def settle_ref(payment_hash: str) -> str:
    """The reference under which the books have the settlement of a payment."""
    return f"ln:{payment_hash}:settle"


def refs_of(memory: Memory) -> list[str]:
    """The references under which the books may have what the node remembers."""
    return [
        *(settle_ref(paid.payment_hash) for paid in memory.paid_out),
        *(ref for paid in memory.paid_in for ref in _receipt_refs(paid)),
    ]


def match(node: NodeName, memory: Memory, known: Counterparts, later: Memory) -> Match:
    """Match every payment and receipt of the node with its counterpart in the books, and the other way round.

    `memory` is from the moment of the balances. `later` is from after the books were read, and shows what was booked in
    between.
    """
    in_flight: list[InFlight] = []
    findings: list[Finding] = []
    for sent in memory.paid_out:
        booked = known.booked.get(settle_ref(sent.payment_hash))
        if booked is None and sent.payment_hash in known.pending:
            in_flight.append(InFlight(kind="payment", ref=sent.payment_hash, amount_msat=sent.total_msat))
        elif booked is None:
            findings.append(_unbooked(node, sent, released=sent.payment_hash in known.released))
        elif booked + sent.total_msat != 0:
            findings.append(_other_amount(node, sent.payment_hash, booked + sent.total_msat))
    for got in memory.paid_in:
        booked = next((known.booked[ref] for ref in _receipt_refs(got) if ref in known.booked), None)
        if booked is None and memory.now_s - got.settled_at_s < RECEIPT_GRACE_S:
            in_flight.append(InFlight(kind="receipt", ref=got.payment_hash, amount_msat=-got.received_msat))
        elif booked is None:
            findings.append(_uncredited(node, got))
        elif booked != got.received_msat:
            findings.append(_other_amount(node, got.payment_hash, booked - got.received_msat))
    listed, since = set(refs_of(memory)), set(refs_of(later))
    unlisted = sorted(ref for ref in known.booked if ref.startswith("ln:") and ref not in listed)
    in_flight += [
        InFlight(kind="booked_since", ref=ref, amount_msat=known.booked[ref]) for ref in unlisted if ref in since
    ]
    unmatched = [ref for ref in unlisted if ref not in since]
    return Match(in_flight=in_flight, findings=findings, unmatched=unmatched)


def compare(
    node: NodeName, cut: BooksCut, held: NodeBalances, in_flight: list[InFlight], findings: Sequence[Finding]
) -> list[AccountComparison]:
    """The three accounts of the node, with what is in flight taken out.

    While HTLCs are in flight, a commitment fee may be on channels instead of escrow, or the reverse. Then only the sum
    of both accounts counts.
    """
    if held.htlc_fees_msat:
        in_flight = [
            *in_flight,
            InFlight(kind="commitment_fee", ref="HTLCs in flight", amount_msat=held.htlc_fees_msat),
        ]
    named_msat = sum(item.amount_msat for item in in_flight) + sum(finding.amount_msat for finding in findings)
    rest_msat = cut.channels_msat - held.channels_msat - named_msat
    moved_msat = cut.commit_escrow_msat - held.commit_escrow_msat
    shift: list[InFlight] = []
    if held.in_flight and moved_msat != 0 and rest_msat == -moved_msat:
        shift = [InFlight(kind="commitment_fee", ref="between channels and escrow", amount_msat=moved_msat)]
        in_flight = [*in_flight, InFlight(kind="commitment_fee", ref=shift[0].ref, amount_msat=-moved_msat)]
    return [
        _account(chart.channels(node), cut.channels_msat, held.channels_msat, in_flight),
        _account(chart.commit_escrow(node), cut.commit_escrow_msat, held.commit_escrow_msat, shift),
        _account(chart.onchain(node), cut.onchain_msat, held.onchain_msat, []),
    ]


def rests(accounts: Sequence[AccountComparison], findings: Sequence[Finding]) -> dict[str, int]:
    """The part of each account's difference that no finding explains, without the zeros."""
    left = {
        account.account: account.difference_msat
        - sum(finding.amount_msat for finding in findings if finding.account == account.account)
        for account in accounts
    }
    return {account: rest_msat for account, rest_msat in left.items() if rest_msat != 0}


def standing(explained: Sequence[Case], findings: Sequence[Finding]) -> list[Finding]:
    """The findings of explained cases that this look does not name, as they were when they were new."""
    named = {(finding.kind.value, finding.account, finding.subject) for finding in findings}
    return [
        Finding(
            kind=FindingKind(case.kind),
            account=case.account,
            subject=case.subject,
            amount_msat=case.amount_msat,
            detail=case.detail,
            suspects=[Suspect(**suspect) for suspect in case.suspects],
        )
        for case in explained
        if (case.kind, case.account, case.subject) not in named
    ]


def unexplained(left: dict[str, int], changes: Sequence[NodeChange]) -> list[Finding]:
    """A finding for each account with a rest. The changes of the node's channels and coins are its suspects."""
    suspects = [
        Suspect(kind=change.kind, ref=change.ref, amount_msat=-change.amount_msat, detail=f"at the node: {change.kind}")
        for change in changes
    ]
    return [
        Finding(
            kind=FindingKind.DIFFERENCE,
            account=account,
            subject=str(rest_msat),
            amount_msat=rest_msat,
            detail=f"books − node = {rest_msat:,} msat that no payment, receipt or fee in flight explains",
            suspects=suspects,
        )
        for account, rest_msat in left.items()
    ]


def not_at_node(node: NodeName, ref: str, booked_msat: int) -> Finding:
    """The books have moved money for something that the node has not done."""
    payment_hash = ref.split(":")[1]
    return _finding(
        FindingKind.NOT_AT_NODE, node, payment_hash, booked_msat, f"{ref} is booked, and {node} has not done it"
    )


def _unbooked(node: NodeName, sent: PaidOut, *, released: bool) -> Finding:
    if released:
        words = f"{node} has paid {sent.total_msat:,} msat for a payment whose money was given back"
        return _finding(FindingKind.PAID_AFTER_RELEASE, node, sent.payment_hash, sent.total_msat, words)
    words = f"{node} has paid {sent.total_msat:,} msat, fee included, and the books know of no such payment"
    return _finding(FindingKind.PAYMENT_NOT_IN_BOOKS, node, sent.payment_hash, sent.total_msat, words)


def _uncredited(node: NodeName, got: PaidIn) -> Finding:
    words = f"{node} was paid {got.received_msat:,} msat more than {RECEIPT_GRACE_S} s ago, and nobody was credited"
    return _finding(FindingKind.RECEIPT_NOT_BOOKED, node, got.payment_hash, -got.received_msat, words)


def _other_amount(node: NodeName, payment_hash: str, difference_msat: int) -> Finding:
    words = f"booked with another amount than {node} names: books − node = {difference_msat:,} msat"
    return _finding(FindingKind.AMOUNT_DIFFERS, node, payment_hash, difference_msat, words)


def _finding(kind: FindingKind, node: NodeName, payment_hash: str, amount_msat: int, detail: str) -> Finding:
    suspect = Suspect(kind="payment_hash", ref=payment_hash, amount_msat=amount_msat, detail=f"at {node}")
    return Finding(
        kind=kind,
        account=chart.channels(node),
        subject=payment_hash,
        amount_msat=amount_msat,
        detail=detail,
        suspects=[suspect],
    )


def _receipt_refs(paid: PaidIn) -> tuple[str, str]:
    return receive_ref(paid.payment_hash), receive_ref(paid.payment_hash, beside_internal=True)


def _account(code: str, books_msat: int, place_msat: int, in_flight: list[InFlight]) -> AccountComparison:
    return AccountComparison(
        account=code,
        books_msat=books_msat,
        place_msat=place_msat,
        in_flight=in_flight,
        difference_msat=books_msat - place_msat - sum(item.amount_msat for item in in_flight),
    )
