"""Settles or refuses payments between our users, one or many, in the caller's transaction.

Many payments share the statements: one call each locks the invoices, reads the payers, reads the payees and posts.
Each payment has its own verdict: a refused one leaves no trace and does not disturb the others. They are posted in the
order in which they came. Of two that pay the same invoice, the second is handled after the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from activities.refusals import about_accounts, in_the_callers_words
from engine.bank import fee_schedule, invoice, payment
from engine.bank.account.account import Payee, find_payees
from engine.bank.limit import LimitBooks, Payer, counts_of, find_payers, read_prices_micro
from engine.bank.payable import already_paid, cancelled
from engine.contracts.payment import PaymentRequest, Refusal
from engine.domain.errors import EngineError, Invalid, InvariantBroken, NotFound, Refused
from engine.domain.fee import Charge, Kind
from engine.domain.ids import BatchId, PaymentHash, WalletId
from engine.ledger import chart
from engine.ledger.book import Posting
from engine.ledger.database import Connection
from engine.ledger.postings.payment import paid_internally
from engine.ledger.store import post_new_batch_in_tx


class BrokenItemsError(InvariantBroken):
    """Some payments contradict the books, and an operator must look. Repeat the transaction without them."""

    def __init__(self, broken: Mapping[int, EngineError]) -> None:
        super().__init__("; ".join(str(error) for error in broken.values()))
        self.broken = broken

    def at(self, places: Sequence[int]) -> "BrokenItemsError":
        """The same error with the caller's own places: `places` maps each place here to one there."""
        return BrokenItemsError({places[place]: error for place, error in self.broken.items()})


@dataclass(frozen=True, slots=True)
class _Plan:
    """A payment that no rule has refused so far."""

    place: int
    payer: Payer
    new: payment.NewPayment
    posting: Posting
    invoice: invoice.InvoiceRow | None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read for all payments of a round."""

    invoices: Mapping[PaymentHash, invoice.InvoiceRow]
    payees: Mapping[WalletId, Payee]
    prices_micro: Mapping[str, int]
    """The prices of the currencies in which any of the payers is limited."""


class InternalPayments:
    """Needs its caller's transaction and nothing else."""

    def __init__(self, ids: chart.Chart) -> None:
        self._ids = ids
        self._fees = fee_schedule.FeeBook()
        self._limits = LimitBooks()

    async def settle_in_tx(
        self,
        conn: Connection,
        asked: Sequence[PaymentRequest],
        workflow_ids: Sequence[str],
        batch_id: BatchId | None = None,
    ) -> list[Refusal | None]:
        """Settle each payment or return its refusal, in their order.

        Raises BrokenItemsError; the caller must then roll back. Repeats are not detected here: the caller has claimed
        the key of each payment. With `batch_id`, each row names the batch and its place in it.
        """
        verdicts: list[Refusal | None] = [None] * len(asked)
        places = list(range(len(asked)))
        while places:
            now, later = _one_per_invoice(asked, places)
            await self._settle_round(conn, asked, workflow_ids, now, verdicts, batch_id)
            places = later
        return verdicts

    async def charge(self, conn: Connection, kind: Kind, asked: PaymentRequest, payer: Payer) -> Charge:
        """Our fee, by the schedule in force in this transaction. Raises Refused when it exceeds the caller's cap."""
        charge = await self._fees.charge(conn, kind, asked.amount_msat, level=payer.level, version=payer.fees_version)
        if asked.fee_cap_msat is not None and charge.fee_msat > asked.fee_cap_msat:
            raise Refused(
                f"Our fee of {charge.fee_msat:,} msat is above max_fee_msat; raise it, or ask for a quote.",
                code="fee_limit_exceeded",
                fee_msat=charge.fee_msat,
                max_fee_msat=asked.fee_cap_msat,
            )
        return charge

    async def _settle_round(
        self,
        conn: Connection,
        asked: Sequence[PaymentRequest],
        workflow_ids: Sequence[str],
        places: Sequence[int],
        verdicts: list[Refusal | None],
        batch_id: BatchId | None,
    ) -> None:
        hashes = [each.payment_hash for each in (asked[place] for place in places) if each.payment_hash is not None]
        invoices = await invoice.find_rows_in_tx(conn, hashes) if hashes else {}
        payers = await find_payers(
            conn, [(each.account_id, each.wallet_id, each.api_key_id) for each in (asked[place] for place in places)]
        )
        wallets = {each.wallet_id for each in invoices.values()}
        wallets |= {each for each in (asked[place].payee_wallet_id for place in places) if each is not None}
        prices_micro = await read_prices_micro(
            conn, self._limits, (payer for payer in payers if payer is not None), "internal"
        )
        known = _Known(invoices, await find_payees(conn, list(wallets)), prices_micro)
        plans: list[_Plan] = []
        broken: dict[int, EngineError] = {}
        for place, payer in zip(places, payers, strict=True):
            try:
                plans.append(await self._plan(conn, place, asked[place], workflow_ids[place], payer, known))
            except (Refused, Invalid, NotFound) as refused:
                verdicts[place] = in_the_callers_words(refused)
            except InvariantBroken as error:
                broken[place] = error
        results = await post_new_batch_in_tx(conn, [plan.posting for plan in plans]) if plans else []
        settled: list[_Plan] = []
        for plan, result in zip(plans, results, strict=True):
            if isinstance(result, Refused):
                verdicts[plan.place] = in_the_callers_words(about_accounts(result, plan.payer))
            elif result is not None:
                broken[plan.place] = result
            else:
                settled.append(plan)
        if broken:
            raise BrokenItemsError(broken)
        await _keep(conn, settled, batch_id)

    async def _plan(
        self, conn: Connection, place: int, asked: PaymentRequest, workflow_id: str, payer: Payer | None, known: _Known
    ) -> _Plan:
        if payer is None:
            raise InvariantBroken(f"{asked.account_id} has no wallet {asked.wallet_id}")
        payer.require_active()
        ours = _payable(asked, known.invoices) if asked.payee_wallet_id is None else None
        wallet_id = ours.wallet_id if ours else asked.payee_wallet_id
        payee = known.payees.get(wallet_id) if wallet_id else None
        if wallet_id is None or payee is None:
            raise NotFound(f"There is no wallet {wallet_id}.")
        payee.require_open()
        charge = await self.charge(conn, "internal", asked, payer)
        new = payment.new_internal(asked, charge, wallet_id, workflow_id)
        counts = await counts_of(conn, self._limits, payer, "internal", new.total_msat, known.prices_micro)
        posting = paid_internally(
            await self._ids.load(conn),
            new,
            payer=payer.ledger_account_id,
            payee=payee.ledger_account_id,
            counts=counts,
        )
        return _Plan(place, payer, new, posting, ours)


def _one_per_invoice(asked: Sequence[PaymentRequest], places: Sequence[int]) -> tuple[list[int], list[int]]:
    """(payments that can be handled together, payments whose invoice one of the first list pays)."""
    now: list[int] = []
    later: list[int] = []
    seen: set[PaymentHash] = set()
    for place in places:
        payment_hash = asked[place].payment_hash
        (later if payment_hash in seen else now).append(place)
        if payment_hash is not None:
            seen.add(payment_hash)
    return now, later


def _payable(asked: PaymentRequest, invoices: Mapping[PaymentHash, invoice.InvoiceRow]) -> invoice.InvoiceRow:
    """The invoice, if it can be paid. Its row is locked: a receipt from outside comes before or after all of this."""
    ours = invoices.get(asked.payment_hash) if asked.payment_hash else None
    if ours is None:
        raise InvariantBroken(f"{asked.payment_id} pays neither a wallet nor an invoice of ours")
    if ours.status == "settled":
        raise already_paid()
    if ours.status == "cancelled":
        raise cancelled()
    if ours.status == "expired" or ours.expires_at <= datetime.now(UTC):
        raise Invalid("This invoice has expired.", code="invoice_expired")
    if ours.amount_msat is not None and ours.amount_msat != asked.amount_msat:
        raise Invalid(
            "The invoice asks for another amount.", code="amount_mismatch", invoice_amount_msat=ours.amount_msat
        )
    if ours.wallet_id == asked.wallet_id:
        raise Invalid("The invoice belongs to the wallet that would pay it.", code="self_payment")
    return ours


async def _keep(conn: Connection, settled: Sequence[_Plan], batch_id: BatchId | None) -> None:
    rows = [
        plan.new if batch_id is None else replace(plan.new, batch_id=batch_id, batch_place=plan.place)
        for plan in settled
    ]
    added = await payment.add_rows_in_tx(conn, rows)
    if missing := [plan for plan in settled if plan.new.id not in added]:
        raise BrokenItemsError(
            {plan.place: InvariantBroken(f"{plan.new.id}: its invoice is open, and has a payment") for plan in missing}
        )
    await invoice.mark_paid_internally_in_tx(
        conn,
        [
            invoice.PaidInternally(invoice=plan.invoice, payment_id=plan.new.id, amount_msat=plan.new.amount_msat)
            for plan in settled
            if plan.invoice is not None
        ],
    )
