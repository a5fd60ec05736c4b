"""An order to pay, and what the books know of it.

The facts of an order are read together with those of all orders that come at the same time: three statements, for one
order or for many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from api.service.auth import Caller
from api.service.destination import as_internal
from engine.bank.accepted import EarlierRequest, find_earlier_requests
from engine.bank.internal_payee import InternalPayees, find_internal_payees
from engine.bank.limit import Payer, find_payers
from engine.contracts import workflow_ids
from engine.domain.destination import Destination, LightningAddress, Lnurl, read_destination
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import AccountId, ApiKeyId, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOrder:
    """What a caller asks to be paid, from one of its wallets."""

    wallet_id: WalletId
    destination: str
    amount_msat: Msat | None = None
    """Required where the destination names no amount."""
    max_fee_msat: Msat | None = None
    """The most to pay on top of the amount, for routing and as our fee."""
    memo: str | None = None
    external_id: str | None = None
    key: str
    """The idempotency key."""
    body_hash: bytes
    """SHA-256 of the order, by which a repeat is told from another order with the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOrder:
    """An order with its caller, and the id of the payment, which is made from account and key."""

    order: PaymentOrder
    account_id: AccountId
    api_key_id: ApiKeyId
    payment_id: PaymentId
    destination: Destination | None
    """None where the text names nothing. The caller gets this error only when all earlier checks pass."""

    @property
    def key(self) -> tuple[AccountId, str]:
        """The key under which Postgres keeps the answer for ever."""
        return self.account_id, self.order.key

    @property
    def workflow_id(self) -> str:
        """The id of the payment's own workflow."""
        return workflow_ids.payment(self.account_id, self.order.key)

    @property
    def asks_payee(self) -> bool:
        """Whether the payee must be asked for an invoice, and gives another one each time."""
        return isinstance(self.destination, LightningAddress | Lnurl)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the books know of an order."""

    payer: Payer | None
    """None: the wallet is not the account's."""
    earlier: EarlierRequest | None
    """None: the key is free."""
    payees: InternalPayees

    def require_payer(self) -> Payer:
        """The payer. Raises NotFound for another account's wallet."""
        if self.payer is None:
            raise no_such("wallet")
        return self.payer


def place(settings: ApiSettings, caller: Caller, order: PaymentOrder) -> PlacedOrder:
    """The order as this caller's."""
    try:
        destination = as_internal(settings, read_destination(order.destination))
    except Invalid:
        destination = None
    account_id = caller.account_id
    return PlacedOrder(
        order=order,
        account_id=account_id,
        api_key_id=ApiKeyId(caller.key_id),
        payment_id=PaymentId(id_for_key("pay", account_id, order.key)),
        destination=destination,
    )


async def find_facts(conn: Connection, placed: Sequence[PlacedOrder]) -> list[Facts]:
    """The facts of each order, in their order."""
    payers = await find_payers(conn, [(each.account_id, each.order.wallet_id, each.api_key_id) for each in placed])
    earlier = await find_earlier_requests(conn, [(each.account_id, each.order.key, each.payment_id) for each in placed])
    payees = await find_internal_payees(conn, [each.destination for each in placed])
    return [Facts(payer, before, payees) for payer, before in zip(payers, earlier, strict=True)]
