"""The door to withdrawals: POST asks for one, GET shows, DELETE cancels. See api/service/withdrawal/."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import Field

from api.access import PathId, get_resources, needs
from api.http import accepted, idempotency_key, prefer
from api.http.body import AmountSat, Body, Content, DestinationText, ExternalId, FeeSat, Id, JsonBody, Memo, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.deadline import Deadline
from api.service.resources import Resources
from api.service.withdrawal import cancel, order, quote, quote_shape, read, shape, withdraw
from engine.domain.withdrawal.withdrawal import Speed
from engine.views.withdrawal.withdrawal import WithdrawalFilter

router = APIRouter(prefix="/v1/withdrawals", tags=["withdrawals"])
Send = Annotated[Caller, Depends(needs("send"))]
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]

_PREFER = f"`wait=N`: wait up to N seconds (0 to {prefer.MAX_WAIT_S}, default 0) for the end of the withdrawal."
_ADDRESS = (
    "A bitcoin address of any kind, also as `bitcoin:…` (BIP 21); an amount in the URI must be `amount_sat`, if that "
    "is given, too."
)


class NewWithdrawalIn(Content):
    """What to pay on chain, and from which wallet."""

    wallet_id: Id
    address: DestinationText = Field(description=_ADDRESS)
    amount_sat: AmountSat | None = Field(default=None, description="Required, unless the URI names one, or `send_all`.")
    send_all: bool = Field(
        default=False, description="Withdraw all that is available, with the fees out of it: exactly 0 is left."
    )
    speed: Annotated[Speed, Field(strict=False)] = Field(
        default=Speed.STANDARD, description="How soon a block should have it. See the quote for what each costs."
    )
    alone: bool = Field(default=False, description="Take no part in a batch: sooner, and at a higher fee.")
    unlinked: bool = Field(
        default=False, description="Pay only with coins that have nothing to do with your own deposits."
    )
    if_mixed: Literal["refuse", "wait"] = Field(
        default="refuse", description="What to do while there are not enough unlinked coins: refuse it, or let it wait."
    )
    fee_from: Literal["balance", "amount"] = Field(
        default="balance", description="Whether the fees come on top of the amount, or out of it."
    )
    max_fee_sat: FeeSat | None = Field(
        default=None,
        description="The most that you pay for it: your share of the miner fee and our fee. It waits while it would "
        "cost more. By default, `max_fee_sat` of the quote.",
    )
    memo: Memo | None = None
    external_id: ExternalId | None = None


class WithdrawalQuoteIn(Content):
    """The withdrawal to quote."""

    wallet_id: Id
    address: DestinationText = Field(description=_ADDRESS)
    amount_sat: AmountSat | None = None
    send_all: bool = False
    fee_from: Literal["balance", "amount"] = "balance"


class WithdrawalsQuery(Paging):
    """Which withdrawals; all conditions count together."""

    wallet_id: Id | None = None
    status: shape.Status | None = None
    speed: shape.SpeedName | None = None
    batch_id: Id | None = None
    external_id: ExternalId | None = None

    def wanted(self, account_id: str) -> WithdrawalFilter:
        """The conditions, for this account."""
        given = self.model_dump(exclude={"limit", "after", "batch_id"})
        return WithdrawalFilter(**given, payout_id=self.batch_id, account_id=account_id)


async def _patience(
    request: Request, _documented: Annotated[str | None, Header(alias="Prefer", description=_PREFER)] = None
) -> Deadline:
    """How long to wait for the end: it takes blocks, so by default not at all."""
    return Deadline(prefer.wait_s(request.headers.getlist("Prefer"), default_s=0))


@router.post(
    "",
    status_code=202,
    summary="Withdraw to a bitcoin address",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
        *("request_too_large", "invalid_destination", "wrong_network", "amount_required", "amount_mismatch"),
        *("amount_too_small", "dust_amount", "self_payment", "insufficient_funds", "limit_exceeded"),
        *("spend_limit_exceeded", "fee_limit_exceeded", "account_locked", "payee_closed", "mix_pool_insufficient"),
        "price_unavailable",
    ),
    openapi_extra=documented(
        NewWithdrawalIn,
        in_a_batch={"wallet_id": "wal_…", "address": "bc1q…", "amount_sat": 250_000, "memo": "savings"},
        soon={"wallet_id": "wal_…", "address": "bc1p…", "amount_sat": 250_000, "speed": "fast", "max_fee_sat": 2_000},
        everything={"wallet_id": "wal_…", "address": "bitcoin:bc1q…", "send_all": True},
        unlinked={"wallet_id": "wal_…", "address": "bc1q…", "amount_sat": 90_000, "unlinked": True, "if_mixed": "wait"},
    ),
)
async def make_withdrawal(
    response: Response,
    caller: Send,
    key: Annotated[str, Depends(idempotency_key.required_key)],
    deadline: Annotated[Deadline, Depends(_patience)],
    body: Annotated[Body[NewWithdrawalIn], Depends(JsonBody(NewWithdrawalIn))],
    resources: Res,
) -> shape.WithdrawalOut:
    """Scope: `send`. Answers 202 once amount and fee cap are held, also where a user of this bank was paid at once.

    With `Prefer: wait=N` it waits up to N seconds for the end. What is not spent of the cap is given back when the
    network has the transaction. Until it is `batched`, it can be cancelled.
    """
    given = body.content.model_dump(exclude={"if_mixed"})
    wanted = order.WithdrawalOrder(
        **given, wait_for_unlinked=body.content.if_mixed == "wait", key=key, body_hash=body.hash
    )
    answer = await withdraw.withdraw(resources, caller, wanted, deadline)
    if answer.is_replay:
        idempotency_key.mark_replayed(response)
    accepted.accept(response, f"{router.prefix}/{answer.content.id}")
    return answer.content


@router.post(
    "/quote",
    summary="Quote a withdrawal",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "request_too_large", "invalid_destination", "wrong_network"),
        *("amount_required", "amount_mismatch", "amount_too_small", "dust_amount", "account_locked"),
    ),
    openapi_extra=documented(
        WithdrawalQuoteIn,
        an_amount={"wallet_id": "wal_…", "address": "bc1q…", "amount_sat": 250_000},
        everything={"wallet_id": "wal_…", "address": "bc1q…", "send_all": True},
    ),
)
async def quote_withdrawal(
    caller: Read,
    _key: Annotated[str | None, Depends(idempotency_key.optional_key)],
    body: Annotated[Body[WithdrawalQuoteIn], Depends(JsonBody(WithdrawalQuoteIn))],
    resources: Res,
) -> quote_shape.WithdrawalQuoteOut:
    """Scope: `read`. Changes nothing, so an Idempotency-Key is accepted and not kept. Fees move with the chain."""
    return await quote.quote_withdrawal(resources, caller, quote.WithdrawalQuoteOrder(**body.content.model_dump()))


@router.get("", summary="List your withdrawals", responses=problems("forbidden", "invalid_request"))
async def list_withdrawals(
    caller: Read, resources: Res, query: Annotated[WithdrawalsQuery, Query()]
) -> Page[shape.WithdrawalOut]:
    """Scope: `read`. Newest first. A cursor belongs to its conditions: ask for every page with the same ones."""
    name = f"withdrawals {caller.account_id} {query.model_dump_json(exclude={'limit', 'after'})}"
    found = await read.list_withdrawals(
        resources, caller, query.wanted(caller.account_id), after=position(query, name), limit=query.limit
    )
    return page_of(found, name)


@router.get("/{withdrawal_id}", summary="Show a withdrawal", responses=problems("forbidden", "not_found"))
async def show_withdrawal(caller: Read, resources: Res, withdrawal_id: PathId) -> shape.WithdrawalOut:
    """Scope: `read`."""
    return await read.show_withdrawal(resources, caller, withdrawal_id)


@router.delete(
    "/{withdrawal_id}",
    summary="Cancel a withdrawal",
    responses=problems("forbidden", "not_found", "already_batched", "withdrawal_ended"),
)
async def cancel_withdrawal(caller: Send, resources: Res, withdrawal_id: PathId) -> shape.WithdrawalOut:
    """Scope: `send`. While it is `queued`: all that was held is free again. A repeat gives the same answer.

    Any key with this scope may cancel any withdrawal of its account, because that spends nothing.
    """
    return await cancel.cancel_withdrawal(resources, caller, withdrawal_id)
