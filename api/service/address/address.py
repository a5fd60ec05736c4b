"""Making an address: the use case, for any door. It comes from the pool, and bitcoind is not asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.service.address.answer import AddressOut, shown, shown_with
from api.service.address.invoice import find_invoice_of_wallet, require_open
from api.service.address.read import read_row
from api.service.auth import Caller
from api.service.idempotency import Intent, Outcome, find_replay, once_written
from api.service.invoice.answer import InvoiceOut
from api.service.resources import Resources
from engine.bank.chain.address import Wanted, give_in_tx
from engine.bank.chain.deposit_rules import read_deposit_rules
from engine.domain.ids import WalletId
from engine.ledger.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressOrder:
    """Which wallet needs an address, and perhaps the invoice that may be paid instead."""

    wallet_id: str
    invoice_id: str | None = None


async def make_address(
    resources: Resources, caller: Caller, order: AddressOrder, *, key: str | None, body_hash: bytes
) -> Outcome[AddressOut]:
    """Give the wallet an address, or find the one that was given with this key.

    Raises NotFound for a wallet or an invoice of another account, what `require_open` raises, Refused for a closed
    account, Conflict, and Unavailable (`no_address_ready`) when the pool is empty.
    """
    caller.require("receive")
    account = caller.account_id
    intent = Intent(owner=account, key=key, body_hash=body_hash)
    known = await find_replay(resources, intent)
    invoice = None
    if order.invoice_id is not None:
        invoice = await find_invoice_of_wallet(resources, account, order.wallet_id, order.invoice_id)
    if known is not None:
        return Outcome(_shown(await read_row(resources, account, known), invoice), is_replay=True)
    if invoice is not None:
        require_open(invoice)
    rows: list[Mapping[str, Any]] = []

    async def write() -> bool:
        async with transaction(resources.pool) as conn:
            wanted = Wanted(
                account_id=account,
                wallet_id=WalletId(order.wallet_id),
                purpose="api",
                most_unpaid=(await read_deposit_rules(conn)).unpaid_addresses,
            )
            row = await give_in_tx(conn, wanted, intent.claim)
        rows.extend([] if row is None else [row])
        return row is not None

    made = await once_written(resources, intent, "", write)
    row = rows[0] if rows else await read_row(resources, account, made.content)
    return Outcome(_shown(row, invoice), is_replay=made.is_replay)


def _shown(row: Mapping[str, Any], invoice: InvoiceOut | None) -> AddressOut:
    return shown(row) if invoice is None else shown_with(row, invoice.bolt11, invoice.amount_msat)
