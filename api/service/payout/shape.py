"""A payout as operators see it: in a list, and with its whole story."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service.withdrawal_decision.answer import WithdrawalDecisionOut
from engine.domain.withdrawal.withdrawal import PayoutKind, PayoutStatus, Speed, VersionKind
from engine.views.withdrawal.payout import MOST_VERSIONS

_STATUSES = (
    "`planned`: members and coins are chosen, and nothing is signed. `signed`: its bytes are stored, and may be "
    "known to anybody. `broadcast`: the network has it, and the books do. `confirmed`: in a block. `final`: deep "
    "enough to be left alone. `dissolved`: given up before anything was signed; its members wait again."
)


class PayoutOut(BaseModel):
    """A transaction of the hot wallet, with its versions as one thing."""

    id: str
    wallet: str
    kind: PayoutKind
    speed: Speed
    alone: bool
    unlinked: bool
    status: PayoutStatus = Field(description=_STATUSES)
    waits_for: str | None = Field(description="What must happen next; null: nothing.")
    on_hold: bool
    problem: str | None = Field(description="Why it does not go on.")
    members: int = Field(description="How many withdrawals it pays.")
    paid_sat: int = Field(description="What its members' payees receive.")
    shares_sat: int = Field(description="What the members pay for it: the miner fee of its first version.")
    version: int | None = Field(description="The version in force; before anything was sent, the newest.")
    txid: str | None
    fee_sat: int | None = Field(description="The miner fee of this version. What it is above `shares_sat` is ours.")
    rate_sat_kvb: int | None = Field(description="The fee rate of this version, in sat per 1,000 virtual bytes.")
    weight: int | None = Field(description="Of this version, in weight units.")
    fee_booked_sat: int = Field(description="The miner fee that the books have.")
    bump_to_sat_kvb: int | None = Field(description="An operator wants the next version to pay this rate.")
    estimate: dict[str, Any] = Field(description="The fee rate that it was planned with, and its source.")
    parent_id: str | None = Field(description="For a child: the payout that it pulls into a block.")
    block_height: int | None
    confirmations: int
    created_at: datetime
    broadcast_at: datetime | None
    confirmed_at: datetime | None
    final_at: datetime | None
    workflow_id: str


class PayoutInputOut(BaseModel):
    """A coin that a version spends, and whose money it descends from."""

    txid: str
    vout: int
    amount_sat: int
    address: str | None
    change: bool = Field(description="Whether it is change of an earlier payout.")
    opening: bool = Field(description="Whether it was in the wallet when that was adopted: the bank's own.")
    origins: list[str] = Field(
        description="The accounts from whose deposits it descends, `unknown` for one without an owner. Empty: the "
        "bank's own."
    )
    reserved: bool = Field(description="Whether it is promised to this payout now.")
    block_height: int | None
    spent_by: str | None = Field(description="The transaction that spends it, as the chain shows it now.")


class PayoutVersionOut(BaseModel):
    """A transaction of a payout. At most one of them is ever confirmed."""

    number: int
    kind: VersionKind
    in_force: bool
    txid: str | None
    rate_sat_kvb: int
    fee_sat: int
    weight: int
    change_sat: int
    change_vout: int | None
    change_address: str | None
    psbt: str | None = Field(description="As it was planned, unsigned.")
    raw: str | None = Field(description="Its bytes, in hex: the same are sent as often as needed.")
    refused: str | None = Field(description="Why the node did not take it.")
    inputs: list[PayoutInputOut]
    created_at: datetime
    signed_at: datetime | None
    broadcast_at: datetime | None


class PayoutMemberOut(BaseModel):
    """A withdrawal that it pays, and its exact share."""

    withdrawal_id: str
    account_id: str
    wallet_id: str
    place: int
    vout: int | None = Field(description="Its output in the version in force.")
    address: str
    amount_sat: int
    paid_sat: int
    miner_fee_sat: int
    service_fee_sat: int
    status: str


class PayoutStoryOut(PayoutOut):
    """A payout with everything that is known of it."""

    versions: list[PayoutVersionOut] = Field(description=f"The newest {MOST_VERSIONS}, newest first.")
    member_list: list[PayoutMemberOut] = Field(description="In their places. Their shares add up to `shares_sat`.")
    children: list[str] = Field(description="Payouts that pull it into a block.")
    decisions: list[WithdrawalDecisionOut] = Field(description="The newest 100, newest first.")
