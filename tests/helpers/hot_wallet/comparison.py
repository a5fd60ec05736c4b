"""The hot wallet against its account, without Temporal: a comparison, a whole run, and what operators do about it."""

import secrets
from dataclasses import dataclass, field

from temporalio.testing import ActivityEnvironment

from activities.correction import Corrections
from activities.reconciliation.hot import ChainReconciliations
from activities.reconciliation.reconciliation import Reconciliations
from engine.contracts.correction import DecideCorrection, Decision, Proposal
from engine.contracts.reconciliation import (
    AccountComparison,
    CaseResolution,
    ChainComparison,
    Finding,
    PlaceReport,
    ResolveCase,
    RunReport,
    RunStart,
    RunStatus,
)
from engine.domain.correction import CorrectionKind, CorrectionStatus
from engine.domain.ids import AccountId, CaseId, CorrectionId, ReconciliationId, new_id
from engine.domain.money import Msat
from engine.ledger.chart import CAPITAL, HOT
from tests.helpers.deposit.depositor import WALLET, Depositors


@dataclass
class HotReconciliation:
    """One bank, compared again and again."""

    bank: Depositors
    environment: ActivityEnvironment = field(default_factory=ActivityEnvironment)

    async def compare(self) -> PlaceReport:
        """The comparison alone; nothing is stored."""
        compared: PlaceReport = await self.environment.run(
            ChainReconciliations(self.bank.bitcoind, self.bank.pool, pause_s=0.02).compare_chain,
            ChainComparison(wallet=WALLET),
        )
        return compared

    async def findings(self) -> list[tuple[str, str, int]]:
        """Kind, subject and satoshi of what a comparison finds; the account's difference is their sum."""
        report = await self.compare()
        (account,) = report.accounts
        assert account.difference_msat == sum(each.amount_msat for each in report.findings), report
        return [brief(each) for each in report.findings]

    async def in_flight(self) -> list[tuple[str, str, int]]:
        """Kind, outpoint and satoshi of what is in flight, while nothing is found."""
        report = await self.compare()
        assert report.findings == [], report
        (account,) = report.accounts
        assert account.difference_msat == 0
        return [(each.kind, each.ref, each.amount_msat // 1000) for each in account.in_flight]

    async def run(self) -> RunStatus:
        """A whole run, stored."""
        report, books = await self.compare(), Reconciliations(self.bank.pool)
        start = RunStart(run=ReconciliationId(new_id("rec")), workflow_id="reconciliation")
        plan = await books.begin_run(start)
        assert plan.wallets == [WALLET]
        run = RunReport(run=start.run, accounts=list[AccountComparison](report.accounts), findings=report.findings)
        return (await books.record_run(run)).status

    async def case(self) -> CaseId:
        """The case that is open, the only one."""
        (row,) = await self.bank.pool.fetch("SELECT id FROM bank.cases WHERE status = 'open'")
        return CaseId(row["id"])

    async def explain(self, case: CaseId) -> None:
        """An operator's explanation."""
        resolve = ResolveCase(case=case, resolution=CaseResolution(operator="carol", reason="planted"))
        assert await Reconciliations(self.bank.pool).resolve_case(resolve)

    async def correct(self, amount_sat: int, *, case: CaseId | None = None, reference: str | None = None) -> None:
        """Two operators book so much less on the hot wallet, as capital; below zero, so much more."""
        sides = (CAPITAL, HOT) if amount_sat > 0 else (HOT, CAPITAL)
        proposal = Proposal(
            correction=CorrectionId(new_id("corr")),
            kind=CorrectionKind.CAPITAL,
            debit=sides[0],
            credit=sides[1],
            amount_msat=Msat(1000 * abs(amount_sat)),
            reason="planted",
            operator=AccountId("admin"),
            key_id="key_admin",
            idempotency_key=secrets.token_hex(8),
            body_hash=secrets.token_hex(32),
            case=case,
            reference=reference,
        )
        corrections = Corrections(self.bank.pool)
        await corrections.propose_correction(proposal)
        decision = Decision(operator=AccountId("dave"), key_id="key_dave", approve=True)
        await corrections.decide_correction(DecideCorrection(correction=proposal.correction, decision=decision))
        outcome = await corrections.post_correction(proposal.correction)
        assert outcome.status is CorrectionStatus.POSTED, outcome


def brief(finding: Finding) -> tuple[str, str, int]:
    assert finding.amount_msat % 1000 == 0
    return finding.kind.value, finding.subject, finding.amount_msat // 1000
