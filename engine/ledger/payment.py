"""The postings of a payment, and its row in the bank. A: amount, F: fee cap, f: actual routing fee.

    event                        reference               entries
    reserved                     ln:<hash>:hold:<n>      [held] Dr user A+F · Cr outbox A+F
    settled                      ln:<hash>:settle        hold inverted · Dr user A+f · Dr routing cost f
                                                         · Cr channels A+f · Cr lightning fees f
    released                     ln:<hash>:void:<n>      hold inverted
    paid to a wallet             pay:<payment id>        Dr payer A · Cr payee A
    paid by invoice, internally  ln:<hash>:recv          the same; shares its reference with a receipt from outside

The user pays f, which is our income, and the network costs us f: both are shown. Row and posting are written in one
transaction, so they cannot disagree; a row says `pending` exactly while its hold is open.
"""

from dataclasses import dataclass

from engine.domain.errors import InvariantBroken
from engine.domain.ids import NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.book import Posting, credit, debit
from engine.ledger.database import Connection, translated

ACTOR = "payment"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """A payment as the bank has it."""

    id: PaymentId
    wallet_id: WalletId
    kind: str
    status: str
    amount_msat: Msat
    max_fee_msat: Msat
    payment_hash: PaymentHash | None
    bolt11: str | None
    amount_in_invoice: bool
    node: NodeName | None
    attempt: int | None
    known_payment_index: int
    workflow_id: str


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


# Postings


def hold_ref(payment_hash: PaymentHash, attempt: int) -> str:
    """Names the hold of one attempt, counted from 1 over all payments of this hash."""
    return f"ln:{payment_hash}:hold:{attempt}"


def receive_ref(payment_hash: PaymentHash) -> str:
    """One reference for "this invoice of ours was paid", from inside or outside: the second of the two is seen."""
    return f"ln:{payment_hash}:recv"


async def reserved(conn: Connection, ids: chart.Chart, payment: NewPayment, user_account: int) -> Posting:
    """Amount and fee cap are promised to the network; before anything is sent."""
    if payment.payment_hash is None or payment.attempt is None:
        raise InvariantBroken(f"{payment.id} is no Lightning payment")
    total_msat = payment.amount_msat + payment.max_fee_msat
    return Posting(
        ref=hold_ref(payment.payment_hash, payment.attempt),
        template="lightning_reserved",
        phase="hold",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        legs=[debit(user_account, total_msat), credit(await ids.get_id(conn, chart.OUTBOX), total_msat)],
    )


async def settled(
    conn: Connection, ids: chart.Chart, payment: PaymentRow, user_account: int, fee_msat: Msat
) -> Posting:
    """The node paid: amount and actual fee leave, the rest of the hold is the user's again."""
    payment_hash, node, attempt = _lightning(payment)
    if fee_msat > payment.max_fee_msat:
        raise InvariantBroken(f"{payment.id}: the node paid a fee of {fee_msat} msat above {payment.max_fee_msat}")
    legs = [
        debit(user_account, payment.amount_msat + fee_msat),
        credit(await ids.get_id(conn, chart.channels(node)), payment.amount_msat + fee_msat),
    ]
    if fee_msat > 0:
        legs += [
            debit(await ids.get_id(conn, chart.ROUTING_COST), fee_msat),
            credit(await ids.get_id(conn, chart.LIGHTNING_FEES), fee_msat),
        ]
    return Posting(
        ref=f"ln:{payment_hash}:settle",
        template="lightning_settled",
        phase="settle",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
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


def paid_internally(payment: NewPayment, payer_account: int, payee_account: int) -> Posting:
    """From one of our users to another; final at once."""
    return Posting(
        ref=receive_ref(payment.payment_hash) if payment.payment_hash else f"pay:{payment.id}",
        template="paid_internally",
        phase="post",
        actor=ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        metadata={"payment": payment.id},
        legs=[debit(payer_account, payment.amount_msat), credit(payee_account, payment.amount_msat)],
    )


def _lightning(payment: PaymentRow) -> tuple[PaymentHash, NodeName, int]:
    if payment.payment_hash is None or payment.node is None or payment.attempt is None:
        raise InvariantBroken(f"{payment.id} is no Lightning payment")
    return payment.payment_hash, payment.node, payment.attempt


# Rows

_GET_ROW = """SELECT id, wallet_id, kind, status, amount_msat, max_fee_msat, payment_hash, bolt11, amount_in_invoice,
    node, attempt, known_payment_index, workflow_id FROM bank.payments WHERE id = $1 FOR UPDATE"""


async def add_row_in_tx(conn: Connection, payment: NewPayment) -> bool:
    """Write the row. False when another live payment has the same hash: one invoice is paid once."""
    with translated():
        added: str | None = await conn.fetchval(
            """INSERT INTO bank.payments(id, account_id, wallet_id, kind, status, destination, amount_msat,
                   max_fee_msat, payment_hash, bolt11, amount_in_invoice, memo, external_id, payee_wallet_id, node,
                   attempt, known_payment_index, workflow_id, settled_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                   CASE $5 WHEN 'settled' THEN clock_timestamp() END)
               ON CONFLICT (payment_hash) WHERE status IN ('pending', 'settled') DO NOTHING RETURNING id""",
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
        )
    return added is not None


async def get_row_in_tx(conn: Connection, payment_id: PaymentId) -> PaymentRow:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(_GET_ROW, payment_id)
    if row is None:
        raise InvariantBroken(f"there is no payment {payment_id}")
    return PaymentRow(**row)


async def mark_settled_in_tx(
    conn: Connection, payment_id: PaymentId, *, fee_msat: Msat, preimage: str, payment_index: int
) -> None:
    """Final: paid, with the proof."""
    with translated():
        await conn.execute(
            """UPDATE bank.payments SET status = 'settled', fee_msat = $2, preimage = $3, payment_index = $4,
                   settled_at = clock_timestamp() WHERE id = $1""",
            payment_id,
            fee_msat,
            preimage,
            payment_index,
        )


async def mark_failed_in_tx(
    conn: Connection, payment_id: PaymentId, *, code: str, detail: str, payment_index: int
) -> None:
    """Final: not paid, and why."""
    with translated():
        await conn.execute(
            """UPDATE bank.payments SET status = 'failed', failure_code = $2, failure_detail = $3, payment_index = $4
                WHERE id = $1""",
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


async def read_earlier_attempts(conn: Connection, payment_hash: PaymentHash) -> tuple[int, int]:
    """(how many payments of this hash there have been, the highest LND payment index among them)."""
    with translated():
        row = await conn.fetchrow(
            """SELECT count(*) AS attempts, coalesce(max(payment_index), 0) AS known
                 FROM bank.payments WHERE payment_hash = $1""",
            payment_hash,
        )
    return (row["attempts"], row["known"]) if row else (0, 0)


async def find_fence(conn: Connection, *, payment_id: PaymentId, attempt: int) -> str | None:
    """The pubkey of the pinned node while this very attempt may be sent; None when its money is no longer held."""
    with translated():
        pubkey: str | None = await conn.fetchval(
            """SELECT n.pubkey FROM bank.payments p JOIN bank.nodes n ON n.name = p.node
                WHERE p.id = $1 AND p.attempt = $2 AND p.status = 'pending'""",
            payment_id,
            attempt,
        )
    return pubkey


async def list_in_flight(conn: Connection, node: NodeName) -> list[str]:
    """The workflows of all payments that wait for this node."""
    with translated():
        rows = await conn.fetch("SELECT workflow_id FROM bank.payments WHERE node = $1 AND status = 'pending'", node)
    return [row["workflow_id"] for row in rows]


async def find_waiting_workflow(conn: Connection, payment_hash: PaymentHash) -> str | None:
    """The workflow of the pending payment of this hash."""
    with translated():
        workflow_id: str | None = await conn.fetchval(
            "SELECT workflow_id FROM bank.payments WHERE payment_hash = $1 AND status = 'pending'", payment_hash
        )
    return workflow_id
