"""The postings of a payment, and its row in the bank. A: amount, F: routing cap, f: actual routing fee, B: our fee,
D: what the payee has taken, which is A unless he took only some parts.

    event                        reference               entries
    reserved                     ln:<hash>:hold:<n>      [held] Dr user A+F+B · Cr outbox A+F+B
    settled                      ln:<hash>:settle        hold inverted · Dr user D+f+B · Dr routing cost f
                                                         · Cr channels D+f · Cr lightning fees f+B
    released                     ln:<hash>:void:<n>      hold inverted
    paid to a wallet             pay:<payment id>        Dr payer A+B · Cr payee A · Cr transfer fees B
    paid by invoice, internally  ln:<hash>:recv          the same; shares its reference with a receipt from outside

The user pays f, which is our income, and the network costs us f: both are shown. B is computed once, when the payment
is opened, and stands in the row with its rule. Row and posting are written in one transaction, so they cannot disagree;
a row says `pending` exactly while its hold is open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from engine.bank.fees import Charge, fee_facts
from engine.domain.errors import InvariantBroken
from engine.domain.ids import BatchId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.limits import Count
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.book import Counted, Fact, Posting, credit, debit
from engine.ledger.database import Connection, change_any, change_one, translated

ACTOR = "payment"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """A payment as the bank has it."""

    id: PaymentId
    wallet_id: WalletId
    ledger_account_id: int
    """The wallet's, from which it is paid."""
    kind: str
    status: str
    destination: str
    amount_msat: Msat
    max_fee_msat: Msat
    """F + B: the most that it may cost beside the amount."""
    payment_hash: PaymentHash | None
    bolt11: str | None
    amount_in_invoice: bool
    node: NodeName | None
    attempt: int | None
    known_payment_index: int
    workflow_id: str
    service_fee_msat: Msat
    fee_version: int | None
    fee_level: int | None
    delivered_msat: Msat | None = None
    """D, where it is not A."""

    @property
    def routing_cap_msat(self) -> Msat:
        """F: the most that the network may take."""
        return Msat(self.max_fee_msat - self.service_fee_msat)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """What is known of a payment when its row is written."""

    id: PaymentId
    account_id: str
    wallet_id: WalletId
    kind: str
    status: str
    destination: str
    amount_msat: Msat
    max_fee_msat: Msat
    """F + B."""
    payment_hash: PaymentHash | None
    bolt11: str | None
    amount_in_invoice: bool
    memo: str | None
    external_id: str | None
    payee_wallet_id: WalletId | None
    node: NodeName | None
    attempt: int | None
    known_payment_index: int
    workflow_id: str
    charge: Charge | None = None
    """B and its rule; None is free of charge."""
    batch_id: BatchId | None = None
    batch_place: int | None = None
    """In its batch, from 0."""

    @property
    def service_fee_msat(self) -> Msat:
        """B."""
        return self.charge.fee_msat if self.charge else Msat(0)

    @property
    def routing_cap_msat(self) -> Msat:
        """F: the most that the network may take."""
        return Msat(self.max_fee_msat - self.service_fee_msat)

    @property
    def total_msat(self) -> Msat:
        """A + F + B: all that it may take from its wallet, which is what is held, and what counts towards limits."""
        return Msat(self.amount_msat + self.max_fee_msat)

    @property
    def fee_facts(self) -> dict[str, Fact]:
        """What its posting says about B."""
        return fee_facts(self.charge.fee_msat, self.charge.version, self.charge.level) if self.charge else {}


# Postings


def hold_ref(payment_hash: PaymentHash, attempt: int) -> str:
    """Names the hold of one attempt, counted from 1 over all payments of this hash."""
    return f"ln:{payment_hash}:hold:{attempt}"


def receive_ref(payment_hash: PaymentHash) -> str:
    """One reference for "this invoice of ours was paid", from inside or outside: the second of the two is seen."""
    return f"ln:{payment_hash}:recv"


async def reserved(
    conn: Connection, ids: chart.Chart, payment: NewPayment, user_account: int, counts: Sequence[Count] = ()
) -> Posting:
    """Amount, routing cap and our fee are promised; before anything is sent."""
    if payment.payment_hash is None or payment.attempt is None:
        raise InvariantBroken(f"{payment.id} is no Lightning payment")
    return Posting(
        ref=hold_ref(payment.payment_hash, payment.attempt),
        template="lightning_reserved",
        phase="hold",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        metadata=payment.fee_facts,
        legs=[
            debit(user_account, payment.total_msat),
            credit(await ids.get_id(conn, chart.OUTBOX), payment.total_msat),
        ],
        counted=_counted(user_account, counts),
    )


async def settled(
    conn: Connection, ids: chart.Chart, payment: PaymentRow, fee_msat: Msat, delivered_msat: Msat | None = None
) -> Posting:
    """The node paid, `fee_msat` for routing: amount and both fees leave, the rest of the hold is the user's again.

    The amount is `delivered_msat` where the payee has taken another one than he was to get. Raises InvariantBroken for
    more than is held.
    """
    payment_hash, node, attempt = _lightning(payment)
    if fee_msat > payment.routing_cap_msat:
        raise InvariantBroken(f"{payment.id}: the node paid a fee of {fee_msat} msat above {payment.routing_cap_msat}")
    amount_msat = payment.amount_msat if delivered_msat is None else delivered_msat
    if amount_msat + fee_msat > payment.amount_msat + payment.routing_cap_msat:
        raise InvariantBroken(f"{payment.id}: the payee has taken {amount_msat} msat, which is more than is held")
    income_msat = fee_msat + payment.service_fee_msat
    legs = [
        debit(payment.ledger_account_id, amount_msat + income_msat),
        credit(await ids.get_id(conn, chart.channels(node)), amount_msat + fee_msat),
    ]
    if fee_msat > 0:
        legs.append(debit(await ids.get_id(conn, chart.ROUTING_COST), fee_msat))
    if income_msat > 0:
        legs.append(credit(await ids.get_id(conn, chart.LIGHTNING_FEES), income_msat))
    return Posting(
        ref=f"ln:{payment_hash}:settle",
        template="lightning_settled",
        phase="settle",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        metadata=fee_facts(payment.service_fee_msat, payment.fee_version, payment.fee_level),
        legs=legs,
        relates_to=[hold_ref(payment_hash, attempt)],
    )


def released(payment: PaymentRow) -> Posting:
    """The node said that nothing was paid: all of the hold is the user's again."""
    payment_hash, _node, attempt = _lightning(payment)
    return Posting(
        ref=f"ln:{payment_hash}:void:{attempt}",
        template="lightning_released",
        phase="void",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        relates_to=[hold_ref(payment_hash, attempt)],
    )


async def paid_internally(
    conn: Connection,
    ids: chart.Chart,
    payment: NewPayment,
    payer_account: int,
    payee_account: int,
    counts: Sequence[Count] = (),
) -> Posting:
    """From one of our users to another; final at once. The payer pays our fee."""
    fee_msat = payment.service_fee_msat
    legs = [debit(payer_account, payment.amount_msat + fee_msat), credit(payee_account, payment.amount_msat)]
    if fee_msat > 0:
        legs.append(credit(await ids.get_id(conn, chart.TRANSFER_FEES), fee_msat))
    return Posting(
        ref=receive_ref(payment.payment_hash) if payment.payment_hash else f"pay:{payment.id}",
        template="paid_internally",
        phase="post",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        metadata={"payment": payment.id, **payment.fee_facts},
        legs=legs,
        counted=_counted(payer_account, counts),
    )


def _counted(payer_account: int, counts: Sequence[Count]) -> Counted | None:
    """Towards the payer's limits; they were asked for with the payer (`limits.counts_of`)."""
    return Counted(payer_account, counts) if counts else None


def _lightning(payment: PaymentRow) -> tuple[PaymentHash, NodeName, int]:
    if payment.payment_hash is None or payment.node is None or payment.attempt is None:
        raise InvariantBroken(f"{payment.id} is no Lightning payment")
    return payment.payment_hash, payment.node, payment.attempt


# Rows

_OPENERS_OWN = timedelta(seconds=10)
"""So long whoever has opened a payment may be sending it without a look; he is done after half of it."""
_ADD_ROWS = """
INSERT INTO bank.payments(id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat, payment_hash,
       bolt11, amount_in_invoice, memo, external_id, payee_wallet_id, node, attempt, known_payment_index, workflow_id,
       service_fee_msat, fee_version, fee_level, batch_id, batch_place, fee_msat, settled_at)
SELECT n.*, CASE n.status WHEN 'settled' THEN n.service_fee_msat ELSE 0 END,
       CASE n.status WHEN 'settled' THEN clock_timestamp() END
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
              $9::text[], $10::text[], $11::boolean[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[],
              $17::bigint[], $18::text[], $19::bigint[], $20::int[], $21::smallint[], $22::text[], $23::smallint[])
       AS n(id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat, payment_hash,
            bolt11, amount_in_invoice, memo, external_id, payee_wallet_id, node, attempt, known_payment_index,
            workflow_id, service_fee_msat, fee_version, fee_level, batch_id, batch_place)
ON CONFLICT (payment_hash) WHERE status IN ('pending', 'settled') DO NOTHING RETURNING id"""

_GET_ROW = """SELECT p.id, p.wallet_id, w.ledger_account_id, p.kind, p.status, p.destination, p.amount_msat,
    p.max_fee_msat, p.payment_hash, p.bolt11, p.amount_in_invoice, p.node, p.attempt, p.known_payment_index,
    p.workflow_id, p.service_fee_msat, p.fee_version, p.fee_level, p.delivered_msat
    FROM bank.payments p JOIN bank.wallets w ON w.id = p.wallet_id WHERE p.id = $1 FOR UPDATE OF p"""


async def add_rows_in_tx(conn: Connection, payments: Sequence[NewPayment]) -> set[PaymentId]:
    """Write the rows. Those are missing of whose hash another live payment is: one invoice is paid once."""
    if not payments:
        return set()
    with translated():
        added = await conn.fetch(_ADD_ROWS, *zip(*(_values(payment) for payment in payments), strict=True))
    return {PaymentId(row["id"]) for row in added}


def _values(payment: NewPayment) -> tuple[object, ...]:
    return (
        payment.id,
        payment.account_id,
        payment.wallet_id,
        payment.kind,
        payment.status,
        payment.destination,
        payment.amount_msat,
        payment.max_fee_msat,
        payment.payment_hash,
        payment.bolt11,
        payment.amount_in_invoice,
        payment.memo,
        payment.external_id,
        payment.payee_wallet_id,
        payment.node,
        payment.attempt,
        payment.known_payment_index,
        payment.workflow_id,
        payment.service_fee_msat,
        payment.charge and payment.charge.version,
        payment.charge and payment.charge.level,
        payment.batch_id,
        payment.batch_place,
    )


async def add_success_action_in_tx(conn: Connection, payment_id: PaymentId, action: Mapping[str, str]) -> None:
    """What its payer is shown once the payment is settled."""
    with translated():
        await conn.execute(
            "INSERT INTO bank.success_actions(payment_id, action) VALUES ($1, $2)", payment_id, dict(action)
        )


async def get_row_in_tx(conn: Connection, payment_id: PaymentId) -> PaymentRow:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(_GET_ROW, payment_id)
    if row is None:
        raise InvariantBroken(f"there is no payment {payment_id}")
    return PaymentRow(**row)


async def hand_over(conn: Connection, payment_id: PaymentId, workflow_id: str) -> None:
    """From now on it is this workflow that sends the payment and waits for its end. One that has ended stays."""
    await change_any(
        conn,
        "UPDATE bank.payments SET workflow_id = $2 WHERE id = $1 AND status = 'pending'",
        payment_id,
        workflow_id,
    )


async def take_over_in_tx(conn: Connection, payment_id: PaymentId, workflow_id: str) -> bool:
    """As `hand_over`, when whoever opened it did not: refused while he may still be sending it."""
    with translated():
        taken: bool | None = await conn.fetchval(
            """UPDATE bank.payments SET workflow_id = $2
                WHERE id = $1 AND created_at < clock_timestamp() - $3::interval RETURNING true""",
            payment_id,
            workflow_id,
            _OPENERS_OWN,
        )
    return bool(taken)


async def mark_settled_in_tx(
    conn: Connection,
    payment_id: PaymentId,
    *,
    fee_msat: Msat,
    preimage: str,
    payment_index: int,
    delivered_msat: Msat | None = None,
) -> None:
    """Final: paid, with the proof. `fee_msat` is routing and our fee. It must be pending."""
    await change_one(
        conn,
        """UPDATE bank.payments SET status = 'settled', fee_msat = $2, preimage = $3, payment_index = $4,
               settled_at = clock_timestamp(), delivered_msat = $5 WHERE id = $1 AND status = 'pending'""",
        payment_id,
        fee_msat,
        preimage,
        payment_index,
        delivered_msat,
    )


async def mark_failed_in_tx(
    conn: Connection, payment_id: PaymentId, *, code: str, detail: str, payment_index: int
) -> None:
    """Final: not paid, and why. It must be pending."""
    await change_one(
        conn,
        """UPDATE bank.payments SET status = 'failed', failure_code = $2, failure_detail = $3, payment_index = $4
            WHERE id = $1 AND status = 'pending'""",
        payment_id,
        code,
        detail,
        payment_index,
    )


async def find_live_status(conn: Connection, payment_hash: PaymentHash) -> str | None:
    """`pending` or `settled` when some payment of ours of this hash is, else None."""
    with translated():
        status: str | None = await conn.fetchval(
            "SELECT status FROM bank.payments WHERE payment_hash = $1 AND status IN ('pending', 'settled')",
            payment_hash,
        )
    return status


async def find_waiting_workflow(conn: Connection, payment_hash: PaymentHash) -> str | None:
    """The workflow of the pending payment of this hash."""
    with translated():
        workflow_id: str | None = await conn.fetchval(
            "SELECT workflow_id FROM bank.payments WHERE payment_hash = $1 AND status = 'pending'", payment_hash
        )
    return workflow_id
