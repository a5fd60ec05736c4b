"""Addresses: the use cases, for any door. An address comes from the pool, and bitcoind is not asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.service.address.answer import AddressOut, shown, shown_with
from api.service.auth import Caller
from api.service.idempotency import Intent, Outcome, find_replay, once_written
from api.service.invoice.answer import InvoiceOut
from api.service.invoice.answer import shown as shown_invoice
from api.service.resources import Resources
from engine.bank.chain.address import Wanted, give_in_tx
from engine.bank.invoice_row import paid
from engine.bank.payable import cancelled
from engine.bank.rulebook import read_current
from engine.domain.deposit import DepositRules, parse_rules
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import AccountId, WalletId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Reader, transaction
from engine.views.address import ADDRESSES, find_address
from engine.views.invoice import find_invoice


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressOrder:
    """Which wallet needs an address, and perhaps the invoice that may be paid instead."""

    wallet_id: str
    invoice_id: str | None = None


async def make_address(
    resources: Resources, caller: Caller, order: AddressOrder, *, key: str | None, body_hash: bytes
) -> Outcome[AddressOut]:
    """Give the wallet an address, or find the one that was given with this key.

    Raises NotFound for a wallet or an invoice of another account, what `_require_open` raises, Refused for a closed
    account, Conflict, and Unavailable (`no_address_ready`) when the pool is empty.
    """
    caller.require("receive")
    account = caller.account_id
    intent = Intent(owner=account, key=key, body_hash=body_hash)
    known = await find_replay(resources, intent)
    invoice = None if order.invoice_id is None else await _find_invoice(resources, account, order)
    if known is not None:
        return Outcome(_shown(await _read(resources, account, known), invoice), is_replay=True)
    if invoice is not None:
        _require_open(invoice)
    rows: list[Mapping[str, Any]] = []

    async def write() -> bool:
        async with transaction(resources.pool) as conn:
            wanted = Wanted(
                account_id=account,
                wallet_id=WalletId(order.wallet_id),
                purpose="api",
                most_unpaid=(await read_rules(conn)).unpaid_addresses,
            )
            row = await give_in_tx(conn, wanted, intent.claim)
        rows.extend([] if row is None else [row])
        return row is not None

    made = await once_written(resources, intent, "", write)
    row = rows[0] if rows else await _read(resources, account, made.content)
    return Outcome(_shown(row, invoice), is_replay=made.is_replay)


async def show_address(resources: Resources, caller: Caller, address: str) -> AddressOut:
    """One address of the caller's account. Raises NotFound."""
    caller.require("read")
    return shown(await _read(resources, caller.account_id, address))


async def list_addresses(
    resources: Resources, caller: Caller, *, after: Position = START, limit: int
) -> Slice[AddressOut]:
    """One page of the addresses of the caller's account, the last one given first."""
    caller.require("read")
    async with resources.reading() as conn:
        found = await ADDRESSES.read(conn, after, limit, caller.account_id)
    return found.map(shown)


async def read_rules(conn: Reader) -> DepositRules:
    """The rulebook of deposits in force."""
    return parse_rules((await read_current(conn, "deposits")).content)


async def _find_invoice(resources: Resources, account: AccountId, order: AddressOrder) -> InvoiceOut:
    row = await find_invoice(resources.pool, account, order.invoice_id or "")
    if row is None or row["wallet_id"] != order.wallet_id:
        raise no_such("invoice")
    return shown_invoice(row)


def _require_open(invoice: InvoiceOut) -> None:
    """Raises Refused (`invoice_already_paid`, `invoice_cancelled`) and Invalid (`invoice_expired`)."""
    if invoice.status == "settled":
        raise paid()
    if invoice.status == "cancelled":
        raise cancelled()
    if invoice.status == "expired":
        raise Invalid("This invoice has expired.", code="invoice_expired", expired_at=invoice.expires_at.isoformat())


def _shown(row: Mapping[str, Any], invoice: InvoiceOut | None) -> AddressOut:
    return shown(row) if invoice is None else shown_with(row, invoice.bolt11, invoice.amount_msat)


async def _read(resources: Resources, account: AccountId, address: str) -> Mapping[str, Any]:
    folded = address.lower() if address == address.upper() else address
    row = await find_address(resources.pool, account, folded)
    if row is None:
        raise no_such("address")
    return row
