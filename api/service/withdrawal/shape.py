"""A withdrawal as its owner sees it, from its row in `engine/views/withdrawal/withdrawal.py`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.domain.deposit import depth
from engine.domain.money import Msat, msat_to_sat_floor

Status = Literal["queued", "batched", "broadcast", "confirmed", "cancelled", "failed"]
SpeedName = Literal["fast", "standard", "slow"]
_STATUSES = (
    "`queued`: its money is held, and it waits for its turn; it can still be cancelled. "
    "`batched`: it has its place in a transaction, which is being signed and sent. "
    "`broadcast`: the network has the transaction; the money has left the wallet. "
    "`confirmed`: the transaction is in a block, or a user of this bank was paid at once. A reorganisation of the "
    "chain may take it back to `broadcast` for a while. "
    "`cancelled`, `failed`: nothing was paid, and all of the money is free again."
)


class WithdrawalFailureOut(BaseModel):
    """Why nothing was paid."""

    code: str
    detail: str


class WithdrawalOut(BaseModel):
    """A withdrawal: what was asked for, and what has become of it."""

    id: str
    wallet_id: str
    address: str = Field(description="Segwit addresses in lower case.")
    kind: Literal["onchain", "internal"] = Field(
        description="`internal`: the address is one of this bank's users, who was paid in the books, without a miner "
        "fee."
    )
    status: Status = Field(description=_STATUSES)
    amount_sat: int = Field(
        description="What was asked for; of `send_all`, the whole balance. With `fee_from: amount`, the fees are taken "
        "from it."
    )
    paid_sat: int | None = Field(description="What the payee receives; null until it has its place in a transaction.")
    fee_sat: int | None = Field(
        description="All that you pay on top of `paid_sat`: your share of the miner fee and our fee. null until it has "
        "its place in a transaction, 0 where nothing was paid."
    )
    miner_fee_sat: int | None = Field(
        description="Your exact share of the miner fee, which never changes: what later versions of the transaction "
        "cost more is ours."
    )
    service_fee_sat: int = Field(description="Our fee, if it is paid.")
    max_fee_sat: int = Field(description="The most that `fee_sat` can be.")
    held_sat: int = Field(description="What is held of the wallet while it has not been sent; else 0.")
    fee_from: Literal["balance", "amount"]
    send_all: bool
    speed: SpeedName
    alone: bool = Field(description="Whether it gets a transaction of its own.")
    unlinked: bool = Field(description="Whether only coins pay it that have nothing to do with your own deposits.")
    txid: str | None = Field(
        description="The transaction that pays it. Until it is `confirmed`, a version with a higher fee may replace it."
    )
    vout: int | None = Field(description="Which output of the transaction pays it.")
    batch_id: str | None = Field(description="The transaction and its versions, as one thing.")
    confirmations: int = Field(description="1 in the newest block, 0 outside of the chain.")
    waits_for: str | None = Field(description="What must happen next, for people; null when it has ended.")
    approve_until: datetime | None = Field(
        description="While an operator must approve it: when it fails if nobody does."
    )
    failure: WithdrawalFailureOut | None
    memo: str | None = Field(description="Your own note. The payee does not see it.")
    external_id: str | None
    created_at: datetime
    broadcast_at: datetime | None
    ended_at: datetime | None = Field(description="When it was confirmed, cancelled or failed.")
    workflow_id: str = Field(description="The Temporal workflow, for operators.")

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in {"confirmed", "cancelled", "failed"}


def show(row: Mapping[str, Any]) -> WithdrawalOut:
    """A withdrawal from its row."""
    return WithdrawalOut(**shown(row))


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `WithdrawalOut`."""
    status, service_fee_sat = row["status"], msat_to_sat_floor(Msat(row["service_fee_msat"]))
    is_internal, is_sealed = row["payee_wallet_id"] is not None, row["paid_sat"] is not None
    share_sat, fee_sat = row["miner_fee_sat"], None
    if status in {"cancelled", "failed"}:
        share_sat = fee_sat = 0
    elif is_sealed:
        fee_sat = share_sat + service_fee_sat
    code, needs_approval = row["failure_code"], status == "queued" and row["approval"] == "needed"
    return {
        **{name: row[name] for name in WithdrawalOut.model_fields if name in row},
        "kind": "internal" if is_internal else "onchain",
        "fee_sat": fee_sat,
        "miner_fee_sat": share_sat,
        "service_fee_sat": service_fee_sat,
        "held_sat": -(-row["held_msat"] // 1000) if status in {"queued", "batched"} else 0,
        "batch_id": row["payout_id"],
        "confirmations": depth(row["block_height"], row["tip_height"] or 0),
        "waits_for": waits_for(row),
        "approve_until": row["approve_until"] if needs_approval else None,
        "failure": WithdrawalFailureOut(code=code, detail=row["failure_detail"] or "") if code else None,
    }


def waits_for(row: Mapping[str, Any]) -> str | None:
    """What must happen next, in words for everybody. None: it has ended."""
    match row["status"]:
        case "queued":
            return _queued_waits_for(row)
        case "batched":
            return "its transaction to be signed and sent"
        case "broadcast":
            return "a block with its transaction"
        case _:
            return None


def _queued_waits_for(row: Mapping[str, Any]) -> str:
    if row["approval"] == "needed":
        return "an operator's approval"
    if row["on_hold"]:
        return "an operator, who has put it on hold"
    if row["account_status"] != "active":
        return f"its account, which is {row['account_status']}"
    return row["waits_for"] or "its turn in the next batch"
