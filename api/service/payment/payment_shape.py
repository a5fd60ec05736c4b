"""A payment as every door shows it, from its row."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.clients.lnurl.success_action import reveal


class FailureOut(BaseModel):
    """Why the payment failed. Nothing was paid."""

    code: str = Field(
        description="no_route, insufficient_liquidity, fee_limit_exceeded, payment_timeout, incorrect_payment_details, "
        "invoice_expired, cancelled, invoice_refused_by_node, lost_attempt or released_by_operators"
    )
    detail: str


class WaitingOut(BaseModel):
    """What a pending payment waits for, as a worker last saw it. Its money stays held."""

    reason: str = Field(
        description="opening, sending, in_flight, not_tried, lost_attempt, channels_in_doubt, overdue, "
        "node_unavailable, outcome_unknown, send_refused, node_refuses, node_replaced, node_forgot, or another word "
        "for people"
    )
    detail: str
    since: datetime
    needs_operator: bool = Field(default=False, description="Whether the payment needs an operator to continue.")


class SuccessActionOut(BaseModel):
    """What an outside LNURL or lightning address shows to its payer (LUD-09, LUD-10)."""

    tag: Literal["message", "url", "aes"]
    message: str | None = Field(
        default=None,
        description="For `message`: the text. For `aes`: the text, decrypted with the preimage, if possible.",
    )
    description: str | None = Field(
        default=None, description="For `url` and `aes`: what the link or the text is about."
    )
    url: str | None = Field(default=None, description="A link to the host that gave the invoice.")


class PaymentOut(BaseModel):
    """A payment. `settled` and `failed` never change again."""

    id: str
    wallet_id: str
    kind: Literal["internal", "lightning"]
    status: Literal["pending", "settled", "failed"]
    destination: str
    amount_msat: int
    delivered_msat: int | None = Field(
        default=None,
        description="What the payee took. Set only if that differs from `amount_msat`: a payee can take some parts "
        "of a payment and leave the others. The rest is back in the wallet.",
    )
    fee_msat: int = Field(description="What was paid on top of the amount: routing and our own fee.")
    max_fee_msat: int = Field(description="The most that may be paid on top of the amount.")
    payment_hash: str | None
    preimage: str | None = Field(description="Proof of a Lightning payment.")
    memo: str | None
    external_id: str | None
    success_action: SuccessActionOut | None = Field(default=None, description="Once it is settled.")
    failure: FailureOut | None
    waiting: WaitingOut | None = Field(description="While it is pending.")
    created_at: datetime
    settled_at: datetime | None
    workflow_id: str = Field(description="The Temporal workflow, for operators.")
    batch_id: str | None = Field(default=None, description="The batch that the payment belongs to.")


def show(row: Mapping[str, Any]) -> PaymentOut:
    """A payment from its row in `engine/views/payment.py`."""
    shown = dict(row)
    code, detail = shown.pop("failure_code"), shown.pop("failure_detail")
    reason, wait_detail, needs_operator, since = (
        shown.pop(name) for name in ("reason", "wait_detail", "needs_operator", "since")
    )
    waiting = None
    if shown["status"] == "pending":
        waiting = WaitingOut(
            reason=reason or "sending",
            detail=wait_detail or "the node is being asked to pay",
            since=since or shown["created_at"],
            needs_operator=bool(needs_operator),
        )
    action = shown.pop("success_action")
    return PaymentOut(
        **shown,
        success_action=SuccessActionOut.model_validate(reveal(action, shown["preimage"])) if action else None,
        failure=FailureOut(code=code, detail=detail or "") if code else None,
        waiting=waiting,
    )
