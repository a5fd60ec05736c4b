"""The answer to a request for a quote."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.service.quote.quote_run import UNANSWERED, UNTOLD, FeeSource

TOO_DEAR = "fee_limit_exceeded"
_WARNINGS = {
    "no_route": "No way is known that carries this amount to the payee in one part; in several parts it may pass.",
    "insufficient_liquidity": "No channel of ours can send this amount in one part now.",
    "payment_timeout": "No way was found to work within a few seconds.",
    UNANSWERED: "A probe was sent and has not come back: the payee, or a node on the way, may keep payments.",
    UNTOLD: "No node of ours could be asked.",
    TOO_DEAR: "The known route costs more than the highest max_fee_msat that this bank allows.",
}
_LIMITS = ("limit_exceeded", "spend_limit_exceeded")


class WarningOut(BaseModel):
    """Why the payment may fail or be refused now. You may still try it."""

    code: str = Field(description=", ".join([*_WARNINGS, *_LIMITS]))
    detail: str


class QuoteOut(BaseModel):
    """What the payment would cost on top of the amount."""

    kind: Literal["internal", "lightning"]
    amount_msat: int
    fee_msat: int = Field(description="Our fee and the expected routing fee.", examples=[5_100])
    fee_source: FeeSource = Field(
        description="exact: this is the fee; probe: a route with this fee has just been tried; estimate: by a node's "
        "map, or else the most that is allowed"
    )
    max_fee_msat: int = Field(description="Send this with the payment as its cap.", examples=[5_100])
    counted_msat: int = Field(
        description="Amount and `max_fee_msat`: what the payment holds, and counts towards limits until it is settled.",
        examples=[105_100],
    )
    expires_at: datetime = Field(description="Until then the routing fee stays the same. Ask again afterwards.")
    warning: WarningOut | None = None


def warning(trouble: str | None) -> WarningOut | None:
    """The warning about what may make the payment fail."""
    return WarningOut(code=trouble, detail=_WARNINGS[trouble]) if trouble else None
