"""Addresses of schema `bank` as a SQLModel class: another part of `bank.py`."""

from datetime import datetime
from typing import Any, ClassVar

from sqlmodel import SQLModel

from engine.views.table.bank import BANK, moment, text


class DepositAddress(SQLModel, table=True):
    """An address of the hot wallet: in the pool, or given to a user's wallet for ever."""

    __tablename__: ClassVar[Any] = "addresses"
    __table_args__ = BANK

    address: str = text(primary_key=True)
    hd_index: int
    made_height: int
    wallet_id: str | None = text("bank.wallets.id", nullable=True)
    account_id: str | None = text("bank.accounts.id", nullable=True)
    purpose: str | None = text(nullable=True)
    paid: bool
    made_at: datetime = moment()
    given_at: datetime | None = moment(nullable=True)
