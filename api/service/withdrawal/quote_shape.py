"""The answer to a request for a quote of a withdrawal."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, Field

from api.service.quote.answer import WarningOut
from engine.domain.withdrawal.fee_rate import Bound
from engine.domain.withdrawal.withdrawal import Speed


class SpeedQuoteOut(BaseModel):
    """What a withdrawal would cost at one speed now."""

    fee_sat: int = Field(description="In the next batch, with what waits now: your share and our fee.")
    miner_fee_sat: int = Field(description="Your share in the next batch.")
    alone_fee_sat: int = Field(description="In a transaction of its own: miner fee and our fee.")
    max_fee_sat: int = Field(
        description="The cap, unless you send another `max_fee_sat`: twice the miner fee alone at the present rate, at "
        "least that at the lowest rate that this bank pays, and our fee."
    )
    waiting: int = Field(
        description="How many wait for the next batch, which would share it: not those that go alone or unlinked."
    )
    rate_sat_kvb: int = Field(description="The fee rate, in sat per 1,000 virtual bytes.", examples=[12_000])
    rate_source: str = Field(description="Where the rate comes from.", examples=["bitcoind"])
    rate_at: datetime | None = Field(description="When it was estimated; null: it does not age.")
    rate_bounded_by: Bound | None = Field(
        description="Why it is not the estimate: `floor` or `ceiling` of this bank's rules, or the `node`'s minimum."
    )
    target_blocks: int = Field(description="Within how many blocks it is expected to be confirmed.")
    window_s: int = Field(description="How long the first in a batch waits for others.")
    expected_s: int = Field(description="How long until a block has it, by the window and 600 s a block.")


class WithdrawalQuoteOut(BaseModel):
    """What a withdrawal would cost, and what may be withdrawn."""

    address: str
    amount_sat: int = Field(description="Of `send_all`, the whole balance, out of which the fees are paid.")
    service_fee_sat: int = Field(description="Our fee, which is part of every `fee_sat` here.")
    speeds: Mapping[Speed, SpeedQuoteOut]
    minimum_sat: int = Field(description="The smallest withdrawal to this address.")
    maximum_sat: int = Field(description="The balance: all that could be withdrawn, with the fees out of it.")
    needs_approval: bool = Field(description="Whether an operator must approve it.")
    warning: WarningOut | None = Field(
        description="Why it would be refused now: `insufficient_funds`, `limit_exceeded` or `spend_limit_exceeded` at "
        "speed `standard`."
    )
