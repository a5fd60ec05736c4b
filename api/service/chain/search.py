"""Deposits as operators see them: page by page, or by transaction, output, address or id. The use cases."""

import re
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.deposit_decision.answer import DepositDecisionOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.deposit import DepositStatus, Sight
from engine.domain.errors import Invalid
from engine.domain.page import START, Position, Slice
from engine.views import chain_search
from engine.views.chain_search import DEPOSITS, DEPOSITS_OF_STATUS, MOST, Question
from engine.views.deposit_decision import list_decisions_of

LONGEST = 120
"""The most characters of a search: an outpoint has 75, an address at most 90."""
_OUTPOINT = re.compile(r"([0-9a-fA-F]{64})(?::([0-9]{1,9}))?")
_TEXT = re.compile(r"[0-9A-Za-z_]{5,100}")
_BECH32 = re.compile(r"(?:BC|TB|BCRT)1[0-9A-Z]+")


class OperatorDepositOut(BaseModel):
    """A deposit with all that the bank knows of it."""

    id: str
    txid: str
    vout: int
    address: str
    account_id: str | None = Field(description="null: nobody's yet")
    wallet_id: str | None
    amount_sat: int
    coinbase: bool
    status: DepositStatus
    sight: Sight = Field(description="Where the transaction was at the pump's last look.")
    block_height: int | None
    block_hash: str | None
    required: int = Field(description="The confirmations at which it is credited.")
    deep: int = Field(description="The confirmations after which it is left alone.")
    below_minimum: bool
    over_limit: bool
    place: Literal["wallet", "pending", "suspense"] | None = Field(
        description="Where the books put it: the owner's wallet, liab:deposits-pending or suspense:in. "
        "null: it is not booked."
    )
    hold_ref: str | None = Field(description="The open hold that shows it as incoming.")
    conf_ref: str | None = Field(description="The posting by which asset:hot has it.")
    release_ref: str | None = Field(description="The posting by which two operators moved it to a wallet.")
    confs: int = Field(description="How often it was booked. More than once: a reorganisation took it back in between.")
    fee_msat: int
    fee_version: int | None
    workflow_id: str
    alone: bool = Field(description="false: many deposits shared a workflow when it was moved on.")
    created_at: datetime
    credited_at: datetime | None
    final_at: datetime | None = Field(description="Since when its block lies deep.")


class EarlierOutpointOut(BaseModel):
    """An output that a deposit had before its transaction was replaced."""

    deposit_id: str
    txid: str
    vout: int
    amount_sat: int
    replaced_at: datetime


class OperatorAddressOut(BaseModel):
    """An address of the hot wallet."""

    address: str
    hd_index: int = Field(description="Its place in the wallet's descriptor.")
    made_height: int = Field(description="Nothing can have been paid to it before this block.")
    wallet_id: str | None = Field(description="null: it is in the pool")
    account_id: str | None
    purpose: Literal["api", "tip"] | None
    paid: bool
    made_at: datetime
    given_at: datetime | None


class CoinOut(BaseModel):
    """An output of the hot wallet, also its change."""

    txid: str
    vout: int
    amount_sat: int
    address: str | None
    change: bool
    block_height: int | None
    spent_by: str | None
    spent_height: int | None
    gone: bool = Field(description="It has left chain and mempool.")
    origins: list[str] = Field(description="Accounts whose deposits it descends from. Empty: the bank's own.")
    seen_at: datetime


class ReceivableOut(BaseModel):
    """What a user had spent of a deposit that a reorganisation took back."""

    id: str
    deposit_id: str
    account_id: str
    wallet_id: str
    amount_msat: int
    ref: str = Field(description="The reversal that left it.")
    status: Literal["open", "repaid", "forgiven"]
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None


class FoundOut(BaseModel):
    """All that belongs to a transaction, an output, an address or a deposit."""

    deposits: list[OperatorDepositOut]
    earlier_outpoints: list[EarlierOutpointOut]
    addresses: list[OperatorAddressOut]
    coins: list[CoinOut]
    receivables: list[ReceivableOut]
    decisions: list[DepositDecisionOut]
    is_cut: bool = Field(description=f"A list has {MOST} entries, and there may be more.")


async def search_chain(resources: Resources, caller: Caller, text: str) -> FoundOut:
    """What is known. Empty lists when nothing is. Raises Invalid for what is none of these."""
    caller.require_role(*MAY["see the chain"])
    asked = read_question(text)
    async with resources.reading() as conn:
        found = await chain_search.find(conn, asked)
        decisions = await list_decisions_of(conn, [row["id"] for row in found.deposits], MOST)
    return FoundOut(
        deposits=[OperatorDepositOut(**row) for row in found.deposits],
        earlier_outpoints=[EarlierOutpointOut(**row) for row in found.earlier_outpoints],
        addresses=[OperatorAddressOut(**row) for row in found.addresses],
        coins=[CoinOut(**row) for row in found.coins],
        receivables=[ReceivableOut(**row) for row in found.receivables],
        decisions=[DepositDecisionOut(**row) for row in decisions],
        is_cut=found.is_cut or len(decisions) >= MOST,
    )


async def list_all_deposits(
    resources: Resources, caller: Caller, status: DepositStatus | None = None, *, after: Position = START, limit: int
) -> Slice[OperatorDepositOut]:
    """One page of the deposits of every account and of none, newest first."""
    caller.require_role(*MAY["see the chain"])
    async with resources.reading() as conn:
        if status is None:
            found = await DEPOSITS.read(conn, after, limit)
        else:
            found = await DEPOSITS_OF_STATUS.read(conn, after, limit, status)
    return found.map(lambda row: OperatorDepositOut(**row))


def read_question(text: str) -> Question:
    """What the text asks for. Raises Invalid."""
    text = text.strip()
    output = _OUTPOINT.fullmatch(text)
    if output is not None:
        txid, vout = output.groups()
        return Question(txid=txid.lower(), vout=None if vout is None else int(vout))
    if not _TEXT.fullmatch(text):
        raise Invalid("Search for a txid, an outpoint (txid:vout), an address or the id of a deposit.", field="q")
    return Question(text=text.lower() if _BECH32.fullmatch(text) else text)
