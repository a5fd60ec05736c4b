"""The ledger's side of a payment, safe to repeat: the second call finds what the first did.

Opening claims the idempotency key, writes the row and moves or holds the money in one transaction, so there is no
moment at which one of them is true without the others. A refusal rolls all of that back and becomes the key's answer.
A payment that was just opened here is sent directly where possible, and ended if the node reports its end.
"""

import time
from contextlib import suppress
from dataclasses import asdict, replace

from temporalio import activity

from activities.direct_send import NO_NODES, DirectSend
from activities.internal import InternalPayments
from activities.refusals import about_accounts, claim_of, find_answer_in_tx, in_the_callers_words
from engine.bank import in_flight, invoice, keysend, payable, payment, sending
from engine.bank.idempotency import claim_keys_in_tx, refuse_claims_in_tx, refuse_key_in_tx
from engine.bank.limit import LimitBooks, Payer, counts_of, find_payers, read_prices_micro
from engine.bank.node import node_choice
from engine.bank.withdraw_link import use
from engine.clients.lnurl.success_action import storable
from engine.contracts import workflow_ids
from engine.contracts.payment import (
    AttemptReport,
    LightningAttempt,
    NodeVerdict,
    OpenedPayment,
    PaymentActivities,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    ReleasePayment,
    SettlePayment,
    release,
    settlement,
)
from engine.domain.errors import EngineError, Invalid, InvariantBroken, NotFound, Refused, Unavailable
from engine.domain.fee import Charge
from engine.domain.money import Msat
from engine.domain.outside import one_line
from engine.domain.routing_cap import max_fee, require_max_fee_in_bounds
from engine.ledger import chart
from engine.ledger.database import Connection, Pool, borrowed, transaction
from engine.ledger.postings.payment import released, reserved, settled
from engine.ledger.store import post_new_in_tx

_DETAIL_BYTES = 1_000


class Payments(PaymentActivities):
    """Needs Postgres. Nodes are optional: with them a payment is sent directly."""

    def __init__(
        self,
        pool: Pool,
        ids: chart.Chart,
        caps: in_flight.Caps = in_flight.NO_CAPS,
        direct_send: DirectSend = NO_NODES,
    ) -> None:
        self._pool = pool
        self.direct_send = direct_send
        self._ids = ids
        self._internal = InternalPayments(ids)
        self._limits = LimitBooks()
        self._caps = caps

    @activity.defn
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        workflow_id = workflow_ids.payment(request.account_id, request.idempotency_key)
        with self.direct_send.place() as may_wait:
            return await self.open(request, workflow_id, may_wait=may_wait)

    async def open(self, request: PaymentRequest, workflow_id: str, *, may_wait: bool) -> OpenedPayment:
        """As `open_payment`, in the workflow with this id, which the payment's row then names.

        Without `may_wait` the payment is opened and not sent. An invoice that the node cannot read is refused first.
        """
        began = time.monotonic()
        try:
            await self._require_readable(request)
            async with transaction(self._pool) as conn:
                if not (await claim_keys_in_tx(conn, [claim_of(request)]))[0]:
                    return await _find_opened_in_tx(conn, request, workflow_id)
                opened = await self._open_in_tx(conn, request, workflow_id)
        except (Refused, Invalid, NotFound) as refused:
            return await self._refuse(request, workflow_id, refused)
        if opened.attempt is None or not may_wait:
            return opened
        return await self._send(request, opened, opened.attempt, began)

    @activity.defn
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        async with transaction(self._pool) as conn:
            row = await payment.get_row_in_tx(conn, settle.payment_id)
            if row.status == PaymentStatus.FAILED:
                raise InvariantBroken(f"{row.id} was released, but the node has paid it")
            delivered_msat = row.delivered_msat
            if row.status == PaymentStatus.PENDING:
                await settle_in_tx(conn, self._ids, row, settle)
                delivered_msat = settle.delivered_msat
        return PaymentOutcome(body_hash=settle.body_hash, status=PaymentStatus.SETTLED, delivered_msat=delivered_msat)

    @activity.defn
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        async with transaction(self._pool) as conn:
            row = await payment.get_row_in_tx(conn, release.payment_id)
            if row.status == PaymentStatus.SETTLED:
                raise InvariantBroken(f"{row.id} is settled, but the node says that it failed")
            if row.status == PaymentStatus.PENDING:
                await release_in_tx(conn, row, release)
        return PaymentOutcome(body_hash=release.body_hash, status=PaymentStatus.FAILED)

    async def _open_in_tx(self, conn: Connection, asked: PaymentRequest, workflow_id: str) -> OpenedPayment:
        if asked.payee_node is not None:
            asked = replace(asked, payment_hash=await keysend.draw_in_tx(conn, asked.payment_id))
        if asked.payment_hash is not None:
            await sending.take_turn_in_tx(conn, asked.payment_hash)
        if asked.withdraw_link_id is not None:
            await use.take_use_in_tx(conn, asked.withdraw_link_id, asked.payment_id, asked.amount_msat)
        if asked.payee_wallet_id is not None or await self._is_ours_in_tx(conn, asked):
            return await self._settle_internally_in_tx(conn, asked, workflow_id)
        (payer,) = await find_payers(conn, [(asked.account_id, asked.wallet_id, asked.api_key_id)])
        if payer is None:
            raise InvariantBroken(f"{asked.account_id} has no wallet {asked.wallet_id}")
        payer.require_active()
        try:
            return await self._reserve_in_tx(conn, asked, payer, workflow_id)
        except Refused as refused:
            raise about_accounts(refused, payer) from refused

    async def _require_readable(self, asked: PaymentRequest) -> None:
        """Have the node that would probably send read the invoice, outside any transaction.

        The opening may choose another node. The send then has that one read the invoice.
        """
        if asked.bolt11 is None or asked.payment_hash is None or not self.direct_send.calls_nodes:
            return
        total_msat = Msat(asked.amount_msat + asked.max_fee_msat)
        async with borrowed(self._pool) as conn:
            reader = await sending.find_reader(conn, asked.payment_hash, total_msat, max_in_flight=self._caps.per_node)
        if reader is not None:
            amount_msat = asked.amount_msat if asked.amount_in_invoice else None
            await self.direct_send.require_readable(reader, asked.bolt11, asked.payment_hash, amount_msat)

    async def _is_ours_in_tx(self, conn: Connection, asked: PaymentRequest) -> bool:
        if asked.payment_hash is None:
            raise InvariantBroken(f"{asked.payment_id} has no destination")
        return await invoice.find_row_in_tx(conn, asked.payment_hash) is not None

    async def _settle_internally_in_tx(
        self, conn: Connection, asked: PaymentRequest, workflow_id: str
    ) -> OpenedPayment:
        (refusal,) = await self._internal.settle_in_tx(conn, [asked], [workflow_id])
        if refusal is not None and asked.withdraw_link_id is not None:  # roll back the use that was taken
            raise Refused(refusal.detail, code=refusal.code, **refusal.fields)
        if refusal is not None:
            await refuse_claims_in_tx(conn, [(claim_of(asked), asdict(refusal))])
            return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, refusal=refusal))
        return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, status=PaymentStatus.SETTLED))

    async def _reserve_in_tx(
        self, conn: Connection, asked: PaymentRequest, payer: Payer, workflow_id: str
    ) -> OpenedPayment:
        if asked.payment_hash is None:
            raise InvariantBroken(f"{asked.payment_id} has no payment hash")
        charge = await self._internal.charge(conn, "lightning_out", asked, payer)
        routing_cap_msat = _max_fee(asked, charge) - charge.fee_msat
        book = await self._limits.get(conn, payer.limits_version)
        require_max_fee_in_bounds(asked.amount_msat, _max_fee(asked, charge), book.max_fee_factor, charge.fee_msat)
        total_msat = Msat(asked.amount_msat + routing_cap_msat)
        sender = await node_choice.choose_sender(conn, total_msat, max_in_flight=self._caps.per_node)
        if sender is None:
            raise Unavailable("no Lightning node has been adopted yet")
        attempts, known_index = await sending.read_earlier_attempts_in_tx(conn, asked.payment_hash, sender)
        new = payment.new_lightning(
            asked,
            charge,
            sender,
            max_fee_msat=_max_fee(asked, charge),
            attempt=attempts + 1,
            known_payment_index=known_index,
            workflow_id=workflow_id,
        )
        if not await payment.add_rows_in_tx(conn, [new]):
            await _refuse_second_payment(conn, asked)
        action = asked.success_action and storable(asked.success_action)
        if action:
            await payment.add_success_action_in_tx(conn, new.id, action)
        prices_micro = await read_prices_micro(conn, self._limits, [payer], "lightning")
        counts = await counts_of(conn, self._limits, payer, "lightning", new.total_msat, prices_micro)
        await post_new_in_tx(conn, reserved(await self._ids.load(conn), new, payer.ledger_account_id, counts))
        await in_flight.require_room_in_tx(conn, asked.account_id, sender, self._caps)
        outcome = PaymentOutcome(body_hash=asked.body_hash, status=PaymentStatus.PENDING)
        return OpenedPayment(outcome=outcome, attempt=_attempt(new))

    async def _send(
        self, asked: PaymentRequest, opened: OpenedPayment, attempt: LightningAttempt, began: float
    ) -> OpenedPayment:
        """Send a payment that this very call has opened. If it has no end here, it goes on from the node's queue.

        So does a payment of which the payee took another amount: its own workflow calls an operator. A payment that the
        node refused before it had it is sent once more from there, because watching it would never bring an answer.
        """
        report = await self.direct_send.send(attempt, opening_since=began)
        if report is None:
            return opened
        if report.verdict is not NodeVerdict.IN_FLIGHT and report.delivered_msat is None:
            with suppress(EngineError):  # the workflow follows it once more, and retries the end
                return OpenedPayment(outcome=await self._end(asked, report))
        is_known = report.verdict is not NodeVerdict.FAILED or report.payment_index > 0
        return replace(opened, attempt=replace(attempt, begun=is_known))

    async def _end(self, asked: PaymentRequest, report: AttemptReport) -> PaymentOutcome:
        if report.verdict is NodeVerdict.SUCCEEDED:
            return await self.settle_payment(settlement(asked, report))
        return await self.release_payment(release(asked, report))

    async def _refuse(self, asked: PaymentRequest, workflow_id: str, refused: EngineError) -> OpenedPayment:
        refusal = in_the_callers_words(refused)
        async with transaction(self._pool) as conn:
            if not await refuse_key_in_tx(
                conn,
                asked.account_id,
                asked.idempotency_key,
                bytes.fromhex(asked.body_hash),
                asdict(refusal),
            ):
                return await _find_opened_in_tx(conn, asked, workflow_id)
        return OpenedPayment(outcome=PaymentOutcome(body_hash=asked.body_hash, refusal=refusal))


async def settle_in_tx(conn: Connection, ids: chart.Chart, row: payment.PaymentRow, settle: SettlePayment) -> None:
    """End a pending payment, whose row is locked, as paid."""
    if row.node is None:
        raise InvariantBroken(f"{row.id} is no Lightning payment")
    posting = settled(
        await ids.load(conn),
        row,
        payer=row.ledger_account_id,
        channels=await ids.load_channels(conn, row.node),
        fee_msat=settle.fee_msat,
        delivered_msat=settle.delivered_msat,
    )
    await post_new_in_tx(conn, posting)
    await payment.mark_settled_in_tx(
        conn,
        row.id,
        fee_msat=Msat(settle.fee_msat + row.service_fee_msat),
        preimage=settle.preimage,
        payment_index=settle.payment_index,
        delivered_msat=settle.delivered_msat,
    )


async def release_in_tx(conn: Connection, row: payment.PaymentRow, release: ReleasePayment) -> None:
    """End a pending payment, whose row is locked, as failed, and return its use of a withdraw link."""
    await use.give_use_back_in_tx(conn, row.id)
    await post_new_in_tx(conn, released(row))
    detail = one_line(release.failure_detail, _DETAIL_BYTES)  # an older release's report has the node's own text
    await payment.mark_failed_in_tx(
        conn, row.id, code=release.failure_code, detail=detail, payment_index=release.payment_index
    )


async def _find_opened_in_tx(conn: Connection, asked: PaymentRequest, workflow_id: str) -> OpenedPayment:
    """What an earlier call with this key did. A pending payment of this same request goes on in this workflow."""
    outcome, row = await find_answer_in_tx(conn, asked)
    if row is None or row.status != PaymentStatus.PENDING:
        return OpenedPayment(outcome=outcome)
    if row.workflow_id != workflow_id and not await payment.take_over_in_tx(conn, row.id, workflow_id):
        raise Unavailable(f"{row.id} has just been opened by {row.workflow_id}, which may be sending it")
    return OpenedPayment(outcome=outcome, attempt=_attempt(row))


async def _refuse_second_payment(conn: Connection, asked: PaymentRequest) -> None:
    status = await payment.find_live_status(conn, asked.payment_hash) if asked.payment_hash else None
    if status == PaymentStatus.SETTLED:
        raise payable.already_paid()
    raise payable.in_progress()


def _max_fee(asked: PaymentRequest, charge: Charge) -> Msat:
    return max_fee(asked.max_fee_msat, asked.fee_cap_msat, charge.fee_msat)


def _attempt(row: payment.NewPayment) -> LightningAttempt:
    if row.payment_hash is None or row.node is None or row.attempt is None:
        raise InvariantBroken(f"{row.id} is pending and no Lightning payment")
    return LightningAttempt(
        payment_id=row.id,
        node=row.node,
        bolt11=row.bolt11 or "",
        payee_node=row.destination if row.bolt11 is None else None,
        payment_hash=row.payment_hash,
        amount_msat=row.amount_msat,
        amount_in_invoice=row.amount_in_invoice,
        max_fee_msat=row.routing_cap_msat,
        attempt=row.attempt,
        known_payment_index=row.known_payment_index,
        service_fee_msat=row.service_fee_msat,
    )
