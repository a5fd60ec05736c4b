"""An address as it is shown."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.domain.bip21 import write_uri
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_ceil


class AddressOut(BaseModel):
    """An on-chain address of a wallet. It stays valid for ever, and every payment to it is credited."""

    address: str
    bip21: str = Field(description="The payment URI. With an invoice it has the amount and offers both ways to pay.")
    wallet_id: str
    purpose: Literal["api", "tip"] = Field(description="tip: the public page shows it.")
    paid: bool = Field(description="Whether a payment to it has been seen.")
    created_at: datetime = Field(description="When the wallet got it.")


def shown(row: Mapping[str, Any]) -> AddressOut:
    """An address of these columns."""
    return AddressOut(bip21=write_uri(row["address"]), **row)


def shown_with(row: Mapping[str, Any], bolt11: str, amount_msat: int | None) -> AddressOut:
    """The same with an invoice that may be paid instead."""
    return AddressOut(bip21=both_ways(row["address"], bolt11, amount_msat), **row)


def both_ways(address: str, bolt11: str, amount_msat: int | None) -> str:
    """A URI that offers the address and the invoice. On chain the amount is rounded up to whole satoshi."""
    amount_sat: Sat | None = None if amount_msat is None else msat_to_sat_floor(sat_ceil(Msat(amount_msat)))
    return write_uri(address, amount_sat=amount_sat, lightning=bolt11)
