"""A teller for tests of the views: what workflows leave in the books, written with the same postings and rows."""

import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

from engine.bank import invoice, payment
from engine.bank.node import node
from engine.domain.fee import Charge
from engine.domain.ids import NodeName, PaymentHash, PaymentId, WalletId, new_id
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.account import get_account_id
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.node import adopted
from engine.ledger.postings.payment import paid_internally, released, reserved, settled
from engine.ledger.postings.receipt import credited
from engine.ledger.store import post_in_tx
from tests.helpers.api import Api, User

NODE = NodeName("lnd-1")
CAPITAL_MSAT = 5_000_000_000
_numbers = itertools.count(1)


@dataclass
class Teller:
    """Posts as the activities do."""

    pool: Pool
    ids: chart.Chart = field(default_factory=chart.Chart)

    async def adopt(self) -> None:
        async with transaction(self.pool) as conn:
            accounts = await node.open_accounts_in_tx(conn, NODE)
            amounts = (Msat(CAPITAL_MSAT), Msat(2_180_000), Msat(300_000_000))
            opening = adopted(await self.ids.load(conn), NODE, accounts, amounts)
            assert opening is not None
            await post_in_tx(conn, opening)
            await node.add_row_in_tx(conn, NODE, pubkey="02" + "ab" * 32, settle_index=0)

    async def receive(
        self, user: User, amount_msat: int, memo: str | None = None, *, charge: Charge | None = None
    ) -> str:
        """Somebody outside pays an invoice of the user's; gives the invoice's id."""
        body = {"wallet_id": user.wallet_id, "amount_msat": amount_msat, "memo": memo}
        made = (await user.post("/v1/invoices", {name: value for name, value in body.items() if value})).json()
        async with transaction(self.pool) as conn:
            row = await invoice.find_row_in_tx(conn, PaymentHash(made["payment_hash"]))
            assert row is not None
            paid = invoice.Received(invoice=row, amount_msat=Msat(amount_msat), charge=charge)
            posting = credited(
                await self.ids.load(conn),
                payment_hash=row.payment_hash,
                amount_msat=Msat(amount_msat),
                channels=await self.ids.load_channels(conn, NODE),
                payee=row.ledger_account_id,
                charge=charge,
                beside_internal=False,
                workflow_id="test",
            )
            await post_in_tx(conn, posting)
            await invoice.mark_received_in_tx(conn, [paid])
        return str(made["id"])

    async def pay_user(
        self,
        payer: User,
        payee: User,
        amount_msat: int,
        memo: str | None = None,
        *,
        by_invoice: bool = False,
        charge: Charge | None = None,
    ) -> str:
        """An internal payment, to the wallet or by an invoice of the payee's; gives its id."""
        made: Any = None
        if by_invoice:
            made = (await payee.post("/v1/invoices", {"wallet_id": payee.wallet_id, "amount_msat": amount_msat})).json()
        new = self._new(
            payer,
            kind="internal",
            status="settled",
            destination=made["bolt11"] if made else f"wallet:{payee.wallet_id}",
            amount_msat=amount_msat,
            max_fee_msat=charge.fee_msat if charge else 0,
            **_columns(charge),
            payment_hash=PaymentHash(made["payment_hash"]) if made else None,
            memo=memo,
            payee_wallet_id=WalletId(payee.wallet_id),
        )
        async with transaction(self.pool) as conn:
            row = await invoice.find_row_in_tx(conn, PaymentHash(made["payment_hash"])) if made else None
            await payment.add_rows_in_tx(conn, [new])
            ids, debited, credited_to = (
                await self.ids.load(conn),
                await _account(conn, payer),
                await _account(conn, payee),
            )
            await post_in_tx(conn, paid_internally(ids, new, payer=debited, payee=credited_to))
            if row:
                paid = invoice.PaidInternally(invoice=row, payment_id=new.id, amount_msat=Msat(amount_msat))
                await invoice.mark_paid_internally_in_tx(conn, [paid])
        return new.id

    async def hold(
        self, payer: User, amount_msat: int, cap_msat: int, memo: str | None = None, *, charge: Charge | None = None
    ) -> payment.PaymentRow:
        """A Lightning payment is begun: its row is pending and its money held; the cap is of the routing alone."""
        new = self._new(
            payer,
            kind="lightning",
            status="pending",
            destination="lnbcrt1somebody",
            amount_msat=amount_msat,
            max_fee_msat=cap_msat + (charge.fee_msat if charge else 0),
            **_columns(charge),
            payment_hash=PaymentHash(secrets.token_hex(32)),
            bolt11="lnbcrt1somebody",
            memo=memo,
            node=NODE,
            attempt=1,
        )
        async with transaction(self.pool) as conn:
            await payment.add_rows_in_tx(conn, [new])
            await post_in_tx(conn, reserved(await self.ids.load(conn), new, await _account(conn, payer)))
            return await payment.get_row_in_tx(conn, new.id)

    async def settle(self, row: payment.PaymentRow, fee_msat: int) -> None:
        async with transaction(self.pool) as conn:
            posting = settled(
                await self.ids.load(conn),
                row,
                payer=row.ledger_account_id,
                channels=await self.ids.load_channels(conn, NODE),
                fee_msat=Msat(fee_msat),
            )
            await post_in_tx(conn, posting)
            await payment.mark_settled_in_tx(
                conn,
                row.id,
                fee_msat=Msat(fee_msat + row.service_fee_msat),
                preimage="cd" * 32,
                payment_index=next(_numbers),
            )

    async def release(self, row: payment.PaymentRow) -> None:
        async with transaction(self.pool) as conn:
            await post_in_tx(conn, released(row))
            await payment.mark_failed_in_tx(conn, row.id, code="no_route", detail="no route", payment_index=1)

    def _new(self, payer: User, **row: Any) -> payment.NewPayment:
        known: dict[str, Any] = {
            "id": PaymentId(new_id("pay")),
            "account_id": payer.id,
            "wallet_id": WalletId(payer.wallet_id),
            "workflow_id": f"payment-{next(_numbers)}",
        }
        return payment.NewPayment(**known | row)


def _columns(charge: Charge | None) -> dict[str, Any]:
    if charge is None:
        return {}
    return {"service_fee_msat": charge.fee_msat, "fee_version": charge.version, "fee_level": charge.level}


async def _account(conn: Connection, user: User) -> int:
    return await get_account_id(conn, chart.user(WalletId(user.wallet_id)))


async def open_teller(api: Api) -> Teller:
    teller = Teller(api.resources.pool)
    await teller.adopt()
    return teller
