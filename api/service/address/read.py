"""Addresses shown: one, or page by page."""

from collections.abc import Mapping
from typing import Any

from api.service.address.answer import AddressOut, shown
from api.service.auth import Caller
from api.service.resources import Resources
from engine.domain.errors import no_such
from engine.domain.ids import AccountId
from engine.domain.page import START, Position, Slice
from engine.views.address import ADDRESSES, find_address


async def show_address(resources: Resources, caller: Caller, address: str) -> AddressOut:
    """One address of the caller's account, in upper or lower case. Raises NotFound."""
    caller.require("read")
    folded = address.lower() if address == address.upper() else address
    return shown(await read_row(resources, caller.account_id, folded))


async def list_addresses(
    resources: Resources, caller: Caller, *, after: Position = START, limit: int
) -> Slice[AddressOut]:
    """One page of the addresses of the caller's account, the last one given first."""
    caller.require("read")
    async with resources.reading() as conn:
        found = await ADDRESSES.read(conn, after, limit, caller.account_id)
    return found.map(shown)


async def read_row(resources: Resources, account: AccountId, address: str) -> Mapping[str, Any]:
    """Its columns. Raises NotFound."""
    row = await find_address(resources.pool, account, address)
    if row is None:
        raise no_such("address")
    return row
