"""The ledger's side of a payment. One transaction each, safe to repeat: the second call finds what the first did.

Opening claims the idempotency key, writes the row and moves or holds the money in one transaction, so there is no
moment at which one of them is true without the others. A rule's no takes all of that back and becomes the key's answer.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from engine.contracts.payment import (
    LightningAttempt,
    OpenedPayment,
    PaymentActivities,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    Refusal,
    ReleasePayment,
    SettlePayment,
)
from engine.contracts.queues import payment_workflow_id
from engine.domain.errors import EngineError, Invalid, InvariantBroken, NotFound, Refused, Unavailable
from engine.domain.fees import Kind as FeeKind
from engine.domain.ids import NodeName, WalletId
from engine.domain.limits import Count, exceeded
from engine.domain.limits import Kind as LimitKind
from engine.domain.money import Msat
from engine.ledger import chart, invoice, node, payment
from engine.ledger import request as requests
from engine.ledger.book import Posting
from engine.ledger.database import Connection, Pool, transaction, translated
from engine.ledger.fees import Charge, FeeBook
from engine.ledger.limits import LimitBooks, Payer, counts_of, find_payer
from engine.ledger.store import post_in_tx


class Payments(PaymentActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._ids = ids
        self._fees = FeeBook()
        self._limits = LimitBooks()

    @activity.defn
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        try:
            async with transaction(self._pool) as conn:
                return await self._open_in_tx(conn, request)
        except (Refused, Invalid, NotFound) as refused:
            return await self._refuse(request, refused)

    @activity.defn
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        async with transaction(self._pool) as conn:
            row = await payment.get_row_in_tx(conn, settle.payment_id)
            if row.status == PaymentStatus.FAILED:
                raise InvariantBroken(f"{row.id} was released, but the node has paid it")
            if row.status == PaymentStatus.PENDING:
                account = await _user_account(conn, row.wallet_id)
                await post_in_tx(conn, await payment.settled(conn, self._ids, row, account, settle.fee_msat))
                await payment.mark_settled_in_tx(
                    conn,
                    row.id,
                    fee_msat=Msat(settle.fee_msat + row.service_fee_msat),
                    preimage=settle.preimage,
                    payment_index=settle.payment_index,
                )
        return PaymentOutcome(body_hash=settle.body_hash, status=PaymentStatus.SETTLED)

    @activity.defn
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        async with transaction(self._pool) as conn:
            row = await payment.get_row_in_tx(conn, release.payment_id)
            if row.status == PaymentStatus.SETTLED:
                raise InvariantBroken(f"{row.id} is settled, but the node says that it failed")
            if row.status == PaymentStatus.PENDING:
                await post_in_tx(conn, payment.released(row))
                await payment.mark_failed_in_tx(
                    conn,
                    row.id,
                    code=release.failure_code,
                    detail=release.failure_detail,
                    payment_index=release.payment_index,
                )
        return PaymentOutcome(body_hash=release.body_hash, status=PaymentStatus.FAILED)

    async def _open_in_tx(self, conn: Connection, asked: PaymentRequest) -> OpenedPayment:
        body_hash = bytes.fromhex(asked.body_hash)
        key = (asked.account_id, asked.idempotency_key)
        if not await requests.claim_key_in_tx(conn, *key, body_hash, asked.payment_id):
            return await self._find_opened_in_tx(conn, asked)
        payer = await _require_sender(conn, asked)
        try:
            return await self._move_in_tx(conn, asked, payer)
        except Refused as refused:
            raise _about_accounts(refused, payer) from refused

    async def _move_in_tx(self, conn: Connection, asked: PaymentRequest, payer: Payer) -> OpenedPayment:
        if asked.payee_wallet_id is not None:
            return await self._pay_wallet_in_tx(conn, asked, payer, asked.payee_wallet_id)
        if asked.payment_hash is None:
            raise InvariantBroken(f"{asked.payment_id} has no destination")
        ours = await invoice.find_row_in_tx(conn, asked.payment_hash)
        if ours is not None:
            return await self._pay_invoice_in_tx(conn, asked, payer, ours)
        return await self._reserve_in_tx(conn, asked, payer)

    async def _find_opened_in_tx(self, conn: Connection, asked: PaymentRequest) -> OpenedPayment:
        """What an earlier call with this key did: this very request, or another one."""
        known = await requests.find_key(conn, asked.account_id, asked.idempotency_key)
        if known is None:
            raise InvariantBroken("an idempotency key was taken and is gone")
        if known.body_hash.hex() != asked.body_hash:
            return OpenedPayment(outcome=PaymentOutcome(body_hash=known.body_hash.hex(), key_conflict=True))
        if known.refusal is not None:
            return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, refusal=_as_refusal(known.refusal)))
        row = await payment.get_row_in_tx(conn, asked.payment_id)
        outcome = PaymentOutcome(body_hash=asked.body_hash, status=PaymentStatus(row.status))
        return OpenedPayment(outcome=outcome, attempt=_attempt(row) if row.status == PaymentStatus.PENDING else None)

    async def _pay_wallet_in_tx(
        self, conn: Connection, asked: PaymentRequest, payer: Payer, payee: WalletId
    ) -> OpenedPayment:
        new = _new_payment(asked, await self._charge(conn, "internal", asked, payer), payee=payee)
        await payment.add_row_in_tx(conn, new)
        payee_account = await _require_payee(conn, payee)
        posting = await self._internal_posting(conn, new, asked, payer, payee_account)
        await post_in_tx(conn, posting)
        return _settled(asked)

    async def _pay_invoice_in_tx(
        self, conn: Connection, asked: PaymentRequest, payer: Payer, ours: invoice.InvoiceRow
    ) -> OpenedPayment:
        """The invoice row is locked, so a receipt from outside comes either before or after all of this."""
        _require_payable(asked, ours)
        await _require_payee(conn, ours.wallet_id)
        new = _new_payment(asked, await self._charge(conn, "internal", asked, payer), payee=ours.wallet_id)
        if not await payment.add_row_in_tx(conn, new):
            raise Refused("This invoice has been paid.", code="invoice_already_paid")
        await invoice.mark_paid_internally_in_tx(conn, ours, payment_id=new.id, amount_msat=asked.amount_msat)
        posting = await self._internal_posting(conn, new, asked, payer, ours.ledger_account_id)
        await post_in_tx(conn, posting)
        return _settled(asked)

    async def _internal_posting(
        self, conn: Connection, new: payment.NewPayment, asked: PaymentRequest, payer: Payer, payee_account: int
    ) -> Posting:
        counts = await self._counts(conn, payer, asked, "internal")
        return await payment.paid_internally(conn, self._ids, new, payer.ledger_account_id, payee_account, counts)

    async def _reserve_in_tx(self, conn: Connection, asked: PaymentRequest, payer: Payer) -> OpenedPayment:
        if asked.payment_hash is None:
            raise InvariantBroken(f"{asked.payment_id} has no payment hash")
        charge = await self._charge(conn, "lightning_out", asked, payer)
        routing_cap_msat = _max_fee(asked, charge, internal=False) - charge.fee_msat
        sender = await node.choose_sender(conn, Msat(asked.amount_msat + routing_cap_msat))
        if sender is None:
            raise Unavailable("no Lightning node has been adopted yet")
        attempts, known_index = await payment.read_earlier_attempts(conn, asked.payment_hash)
        new = _new_payment(asked, charge, sender=sender, attempt=attempts + 1, known_payment_index=known_index)
        if not await payment.add_row_in_tx(conn, new):
            await _refuse_second_payment(conn, asked)
        counts = await self._counts(conn, payer, asked, "lightning")
        await post_in_tx(conn, await payment.reserved(conn, self._ids, new, payer.ledger_account_id, counts))
        row = await payment.get_row_in_tx(conn, new.id)
        outcome = PaymentOutcome(body_hash=asked.body_hash, status=PaymentStatus.PENDING)
        return OpenedPayment(outcome=outcome, attempt=_attempt(row))

    async def _charge(self, conn: Connection, kind: FeeKind, asked: PaymentRequest, payer: Payer) -> Charge:
        """Our fee, by the schedule in force in this transaction. Raises Refused when it is above the caller's cap."""
        charge = await self._fees.charge(conn, kind, asked.amount_msat, level=payer.level, version=payer.fees_version)
        if asked.fee_cap_msat is not None and charge.fee_msat > asked.fee_cap_msat:
            raise Refused(
                f"Our fee of {charge.fee_msat:,} msat is above max_fee_msat; raise it, or ask for a quote.",
                code="fee_limit_exceeded",
                fee_msat=charge.fee_msat,
                max_fee_msat=asked.fee_cap_msat,
            )
        return charge

    async def _counts(self, conn: Connection, payer: Payer, asked: PaymentRequest, kind: LimitKind) -> list[Count]:
        """The amount, without fees; beyond the usual fee cap also that, for a key with caps."""
        max_fee_msat = asked.max_fee_msat if kind == "lightning" else Msat(0)
        return await counts_of(conn, self._limits, payer, kind, asked.amount_msat, max_fee_msat)

    async def _refuse(self, asked: PaymentRequest, refused: EngineError) -> OpenedPayment:
        refusal = _in_the_callers_words(refused)
        async with transaction(self._pool) as conn:
            if not await requests.refuse_key_in_tx(
                conn, asked.account_id, asked.idempotency_key, bytes.fromhex(asked.body_hash), asdict(refusal)
            ):
                return await self._find_opened_in_tx(conn, asked)
        return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, refusal=refusal))


def _in_the_callers_words(refused: EngineError) -> Refusal:
    """The books speak of accounts, floors and counters; a caller has a wallet, limits and a key."""
    if refused.code == "limit_exceeded":
        code, sentence, facts = exceeded(refused.fields)
        return Refusal(code=code, detail=sentence, fields=facts)
    if refused.code != "insufficient_funds" or "needed" not in refused.fields:
        return Refusal(code=refused.code, detail=refused.detail, fields=refused.fields)
    needed_msat = refused.fields["needed"]
    fields = {"needed_msat": needed_msat, "available_msat": refused.fields.get("available")}
    detail = f"This wallet has not enough available for {needed_msat:,} msat, the most that this payment may cost."
    return Refusal(code=refused.code, detail=detail, fields=fields)


async def _require_sender(conn: Connection, asked: PaymentRequest) -> Payer:
    """The payer, if it may send. Asked without a lock: the books refuse whoever is locked or closed meanwhile."""
    payer = await find_payer(conn, asked.account_id, asked.wallet_id, asked.api_key_id)
    if payer is None:
        raise InvariantBroken(f"{asked.account_id} has no wallet {asked.wallet_id}")
    if payer.status != "active":
        raise _may_not_send(payer.status)
    return payer


def _may_not_send(status: str) -> Refused:
    return Refused("This account may not send.", code="account_locked", account_status=status)


def _payee_closed() -> Refused:
    return Refused("The payee's account is closed.", code="payee_closed")


def _about_accounts(refused: Refused, payer: Payer) -> Refused:
    """What the books say of an account that was locked or closed at this very moment, as it is said to a caller."""
    if refused.code == "account_locked":
        return _may_not_send("locked")
    if refused.code == "account_closed":
        is_payer = refused.fields.get("account_id") == payer.ledger_account_id
        return _may_not_send("closed") if is_payer else _payee_closed()
    return refused


async def _require_payee(conn: Connection, wallet_id: WalletId) -> int:
    """The payee's account in the books. A locked account still receives; a closed one does not."""
    with translated():
        row = await conn.fetchrow(
            """SELECT w.ledger_account_id, a.status FROM bank.wallets w JOIN bank.accounts a ON a.id = w.account_id
                WHERE w.id = $1""",
            wallet_id,
        )
    if row is None:
        raise NotFound(f"There is no wallet {wallet_id}.")
    if row["status"] == "closed":
        raise _payee_closed()
    return int(row["ledger_account_id"])


def _require_payable(asked: PaymentRequest, ours: invoice.InvoiceRow) -> None:
    if ours.status == "settled":
        raise Refused("This invoice has been paid.", code="invoice_already_paid")
    if ours.status == "cancelled":
        raise Refused("This invoice was cancelled by its owner.", code="invoice_cancelled")
    if ours.status == "expired" or ours.expires_at <= datetime.now(UTC):
        raise Invalid("This invoice has expired.", code="invoice_expired")
    if ours.amount_msat is not None and ours.amount_msat != asked.amount_msat:
        raise Invalid(
            "The invoice asks for another amount.", code="amount_mismatch", invoice_amount_msat=ours.amount_msat
        )
    if ours.wallet_id == asked.wallet_id:
        raise Invalid("The invoice belongs to the wallet that would pay it.", code="self_payment")


async def _refuse_second_payment(conn: Connection, asked: PaymentRequest) -> None:
    status = await payment.find_live_status(conn, asked.payment_hash) if asked.payment_hash else None
    if status == PaymentStatus.SETTLED:
        raise Refused("This invoice has been paid.", code="invoice_already_paid")
    raise Refused("This invoice is being paid right now.", code="payment_in_progress")


async def _user_account(conn: Connection, wallet_id: WalletId) -> int:
    with translated():
        return int(await conn.fetchval("SELECT ledger_account_id FROM bank.wallets WHERE id = $1", wallet_id))


def _max_fee(asked: PaymentRequest, charge: Charge, *, internal: bool) -> Msat:
    """The most that it may cost beside the amount: the network's part, which is what the cap leaves, and our fee."""
    if internal:
        return charge.fee_msat
    return Msat(asked.max_fee_msat + charge.fee_msat) if asked.fee_cap_msat is None else asked.fee_cap_msat


def _new_payment(
    asked: PaymentRequest,
    charge: Charge,
    *,
    payee: WalletId | None = None,
    sender: NodeName | None = None,
    attempt: int | None = None,
    known_payment_index: int = 0,
) -> payment.NewPayment:
    """The row to write: internal and final with a payee, Lightning and pending with a sender."""
    internal = payee is not None
    return payment.NewPayment(
        id=asked.payment_id,
        account_id=asked.account_id,
        wallet_id=asked.wallet_id,
        kind="internal" if internal else "lightning",
        status=PaymentStatus.SETTLED if internal else PaymentStatus.PENDING,
        destination=asked.destination,
        amount_msat=asked.amount_msat,
        max_fee_msat=_max_fee(asked, charge, internal=internal),
        payment_hash=asked.payment_hash,
        bolt11=asked.bolt11,
        amount_in_invoice=asked.amount_in_invoice,
        memo=asked.memo,
        external_id=asked.external_id,
        payee_wallet_id=payee,
        node=sender,
        attempt=attempt,
        known_payment_index=known_payment_index,
        workflow_id=payment_workflow_id(asked.account_id, asked.idempotency_key),
        charge=charge,
    )


def _attempt(row: payment.PaymentRow) -> LightningAttempt:
    if row.payment_hash is None or row.bolt11 is None or row.node is None or row.attempt is None:
        raise InvariantBroken(f"{row.id} is pending and no Lightning payment")
    return LightningAttempt(
        payment_id=row.id,
        node=row.node,
        bolt11=row.bolt11,
        payment_hash=row.payment_hash,
        amount_msat=row.amount_msat,
        amount_in_invoice=row.amount_in_invoice,
        max_fee_msat=row.routing_cap_msat,
        attempt=row.attempt,
        known_payment_index=row.known_payment_index,
        service_fee_msat=row.service_fee_msat,
    )


def _settled(asked: PaymentRequest) -> OpenedPayment:
    return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, status=PaymentStatus.SETTLED))


def _as_refusal(kept: dict[str, Any]) -> Refusal:
    return Refusal(code=kept["code"], detail=kept["detail"], fields=kept["fields"])
