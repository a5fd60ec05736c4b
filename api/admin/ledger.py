"""The books over HTTP, for operators. Amounts are signed, debit +, so every column sums to zero."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.http.download import stream
from api.http.errors import problems
from api.http.period import Instant, Period
from api.service import ledger
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.views import balance, export, transfer_history

router = APIRouter(prefix="/v1/admin/ledger", tags=["ledger"])
Finance = Annotated[Caller, Depends(needs_role(*MAY["read the books"]))]
Helper = Annotated[Caller, Depends(needs_role(*MAY["read a transfer"]))]
Res = Annotated[Resources, Depends(get_resources)]
Code = Annotated[str, Path(pattern=r"^[0-9A-Za-z:_.@-]{1,128}$", examples=["income:ln-fee"])]
Ref = Annotated[str, Path(pattern=r"^[!-~]{1,200}$", examples=["capital:corr_4t7q2v6x1b0n8r5d01k5y8z3c"])]

_BEANCOUNT = '2026-01-31 * "lightning_settled" ""\n  Income:Settled:Income:Ln--fee  -450 MSAT\n'
_TEXTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": ",".join(export.COLUMNS) + "\r\n"},
            "text/plain": {"schema": {"type": "string"}, "example": _BEANCOUNT},
        }
    }
}


class At(BaseModel):
    """Which moment."""

    model_config = ConfigDict(extra="forbid")

    at: Instant | None = Field(
        default=None,
        description="The moment, up to the end of its microsecond, RFC 3339. Default: now.",
        examples=["2026-01-31T00:00:00Z"],
    )


class TrialBalanceQuery(At):
    """Which moment, and whether each user has a row."""

    users: Literal["each", "together"] = Field(
        default="each", description="together: one row `liab:user:*` instead of one per wallet."
    )


class ExportQuery(Period):
    """Which entries, and in which format."""

    format: Literal["csv", "beancount"] = "csv"


class SumsOut(BaseModel):
    """An account's sums, debit +."""

    code: str = Field(examples=["income:ln-fee"])
    kind: str = Field(description="asset, liability, equity, income or expense", examples=["income"])
    currency: str = Field(examples=["BTC"])
    settled_msat: int = Field(description="What has happened.", examples=[-450])
    held_msat: int = Field(description="What is promised.", examples=[0])


class TotalOut(BaseModel):
    """What a currency sums to: zero."""

    currency: str = Field(examples=["BTC"])
    settled_msat: int = Field(examples=[0])
    held_msat: int = Field(examples=[0])


class TrialBalanceOut(BaseModel):
    """Every account at one moment."""

    at: datetime
    accounts: list[SumsOut]
    totals: list[TotalOut]


class AccountBalanceOut(SumsOut):
    """One account at one moment."""

    at: datetime


class EntryOut(BaseModel):
    """One leg, debit +."""

    account: str = Field(examples=["liab:outbox"])
    currency: str
    layer: str = Field(description="settled or held")
    amount_msat: int
    balance_after_msat: int | None = Field(description="Of accounts with a running balance.")


class StepOut(BaseModel):
    """One transfer of a history."""

    ref: str = Field(examples=["ln:3f…:hold:1"])
    template: str = Field(description="Which kind of posting.", examples=["lightning_reserved"])
    phase: str = Field(description="post, hold, settle, void, expire or reverse")
    status: str = Field(description="of a hold: open, settled, voided or expired; of others: final or reversed")
    resolves: list[str] = Field(description="The references of the transfers that this one ended.")
    actor: str
    workflow_id: str | None
    description: str | None
    metadata: dict[str, Any]
    effective_on: date
    received_at: datetime
    posted_at: datetime
    expires_at: datetime | None
    entries: list[EntryOut]


class StoryOut(BaseModel):
    """A transfer, what it resolved and what resolved it, oldest first."""

    ref: str
    status: str
    payment_ids: list[str]
    invoice_ids: list[str]
    correction_ids: list[str] = Field(description="Corrections and capital: who proposed, who approved, and why.")
    deposit_ids: list[str]
    withdrawal_ids: list[str]
    payout_ids: list[str]
    steps: list[StepOut]


@router.get(
    "/trial-balance", summary="Show the trial balance of any moment", responses=problems("forbidden", "invalid_request")
)
async def give_trial_balance(
    caller: Finance, resources: Res, query: Annotated[TrialBalanceQuery, Query()]
) -> TrialBalanceOut:
    """Role: `finance`. Exact once every posting that had begun at that moment has ended.

    It reads each account, and for moments of the past what was posted on it since its last closing before. With more
    than 10,000 accounts `users=each` is refused: use `users=together`, or the export.
    """
    at = query.at or datetime.now(UTC)
    rows = await ledger.give_trial_balance(resources, caller, query.at, users_together=query.users == "together")
    return TrialBalanceOut(at=at, accounts=[_sums(row) for row in rows], totals=_totals(rows))


@router.get(
    "/accounts/{code}/balance",
    summary="Show one account's balance at any moment",
    responses=problems("forbidden", "not_found", "invalid_request"),
)
async def give_account_balance(
    caller: Finance, resources: Res, code: Code, query: Annotated[At, Query()]
) -> AccountBalanceOut:
    """Role: `finance`. The account's row of the trial balance."""
    at = query.at or datetime.now(UTC)
    row = await ledger.give_account_balance(resources, caller, code, query.at)
    return AccountBalanceOut(at=at, **_sums(row).model_dump())


@router.get(
    "/transfers/{ref}",
    summary="Show the history of a transfer",
    responses=problems("forbidden", "not_found", "invalid_request"),
)
async def tell_transfer(caller: Helper, resources: Res, ref: Ref) -> StoryOut:
    """Role: `finance` or `support`. A hold comes with what settled or released it, a settlement with its hold."""
    found = await ledger.tell_transfer(resources, caller, ref)
    steps = [_step(step) for step in found.steps]
    return StoryOut(
        ref=ref,
        status=next(step.status for step in steps if step.ref == ref),
        payment_ids=list(found.payment_ids),
        invoice_ids=list(found.invoice_ids),
        correction_ids=list(found.correction_ids),
        deposit_ids=list(found.deposit_ids),
        withdrawal_ids=list(found.withdrawal_ids),
        payout_ids=list(found.payout_ids),
        steps=steps,
    )


@router.get(
    "/export",
    summary="Export the whole book",
    response_class=Response,
    responses={**problems("forbidden", "invalid_request"), **_TEXTS},
)
async def export_ledger(caller: Finance, resources: Res, query: Annotated[ExportQuery, Query()]) -> Response:
    """Role: `finance`. All entries of [from, to), in one snapshot, as CSV or for Beancount.

    With `from`, what every account had before comes first, as `opening`: so the sums per account and layer are the
    balances at the end. If the connection breaks off, the export is not complete. Four may run at a time,
    per process.
    """
    query.check()
    pieces = await ledger.export_ledger(resources, caller, query.format, query.begins_at, query.ends_at)
    if query.format == "csv":
        return await stream(pieces, media_type="text/csv", file_name="ledger.csv")
    return await stream(pieces, media_type="text/plain", file_name="ledger.beancount")


def _sums(row: balance.TrialBalanceRow) -> SumsOut:
    return SumsOut(
        code=row.code,
        kind=row.kind,
        currency=row.currency,
        settled_msat=row.settled_msat,
        held_msat=row.held_msat,
    )


def _totals(rows: Sequence[balance.TrialBalanceRow]) -> list[TotalOut]:
    return [
        TotalOut(
            currency=currency,
            settled_msat=sum(row.settled_msat for row in rows if row.currency == currency),
            held_msat=sum(row.held_msat for row in rows if row.currency == currency),
        )
        for currency in sorted({row.currency for row in rows})
    ]


def _step(step: transfer_history.Step) -> StepOut:
    return StepOut(
        ref=step.ref,
        template=step.template,
        phase=step.phase,
        status=step.status,
        resolves=list(step.resolves),
        actor=step.actor,
        workflow_id=step.workflow_id,
        description=step.description,
        metadata=step.metadata,
        effective_on=step.effective_on,
        received_at=step.received_at,
        posted_at=step.posted_at,
        expires_at=step.expires_at,
        entries=[
            EntryOut(
                account=leg.code,
                currency=leg.currency,
                layer=leg.layer,
                amount_msat=leg.amount_msat,
                balance_after_msat=leg.balance_after_msat,
            )
            for leg in step.entries
        ],
    )
