"""Builds the findings of a run with their texts: one function for each kind."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from engine.bank.reconciliation import CaseRow, Loose, NewCase, Pending
from engine.contracts.reconciliation import AccountComparison, Finding, FindingKind, OpenCase, Suspect
from engine.domain.ids import NodeName
from engine.ledger import chart

BOOKS = "books"
"""The account of a finding that concerns the books as a whole."""


def payment_waits(kind: FindingKind, node: NodeName, waiting: Pending, state: str) -> Finding:
    """A payment that has been pending too long."""
    workflow = "its workflow runs" if kind is FindingKind.PAYMENT_PENDING_LONG else "no workflow waits for it"
    age = timedelta(seconds=waiting.age_s)
    return Finding(
        kind=kind,
        account=chart.channels(node),
        subject=waiting.payment_hash,
        amount_msat=0,
        detail=f"{waiting.id} over {waiting.amount_msat:,} msat is pending for {age}; at {node}: {state}; {workflow}",
        suspects=[
            Suspect(kind="payment", ref=waiting.id, amount_msat=0, detail=f"workflow {waiting.workflow_id}"),
        ],
    )


def place_moving(node: str, accounts: list[AccountComparison]) -> Finding:
    """A node at which something moved during every look."""
    differences = ", ".join(f"{each.account} {each.difference_msat:,}" for each in accounts if each.difference_msat)
    return Finding(
        kind=FindingKind.PLACE_MOVING,
        account=f"asset:lnd:{node}:",
        subject=node,
        amount_msat=0,
        detail=f"{node} was never at rest for the length of a cut; the last one, in msat: {differences}",
    )


def wallet_moving(wallet: str, account: AccountComparison) -> Finding:
    """A wallet of bitcoind of which no two cuts agreed."""
    return Finding(
        kind=FindingKind.PLACE_MOVING,
        account=account.account,
        subject=wallet,
        amount_msat=0,
        detail=f"{wallet} was never at rest for the length of a cut; the last one: {account.difference_msat:,} msat",
    )


def broken_rules(messages: Sequence[str]) -> list[Finding]:
    """One finding for each rule and subject. Amounts do not name it: they may change with every payment."""
    found: dict[str, Finding] = {}
    for words in messages:
        subject = ": ".join(words.split(": ")[:2])
        told = Finding(kind=FindingKind.BROKEN_RULE, account=BOOKS, subject=subject, amount_msat=0, detail=words)
        found.setdefault(subject, told)
    return list(found.values())


def loose_hold(kind: FindingKind, loose: Loose) -> Finding:
    """A hold, a deposit or a cancellation that nothing in the bank explains."""
    suspect = Suspect(kind="reference", ref=loose.ref, amount_msat=loose.amount_msat, detail=loose.detail)
    detail = f"{loose.ref}: {loose.amount_msat:,} msat {loose.detail}"
    return Finding(kind=kind, account=BOOKS, subject=loose.ref, amount_msat=0, detail=detail, suspects=[suspect])


def as_case(finding: Finding) -> NewCase:
    """The case that a run opens for a finding."""
    return NewCase(
        kind=finding.kind.value,
        account=finding.account,
        subject=finding.subject,
        amount_msat=finding.amount_msat,
        detail=finding.detail,
        suspects=[asdict(suspect) for suspect in finding.suspects],
    )


def open_case(case: CaseRow) -> OpenCase:
    """The input of a case's workflow."""
    return OpenCase(
        case=case.id,
        kind=case.kind,
        account=case.account,
        subject=case.subject,
        amount_msat=case.amount_msat,
        detail=case.detail,
        suspects=[Suspect(**suspect) for suspect in case.suspects],
    )
