"""What a caller is told: the stored answer of a key, or a refusal with a public code."""

from typing import Any

from engine.bank import payment
from engine.bank.accepted import find_earlier_requests
from engine.bank.account.account import may_not_send, payee_closed
from engine.bank.idempotency import Claim, find_key
from engine.bank.limit import Payer
from engine.contracts.payment import PaymentOutcome, PaymentRequest, PaymentStatus, Refusal
from engine.domain.errors import EngineError, InvariantBroken, Refused
from engine.domain.ids import AccountId, PaymentId
from engine.domain.limit import exceeded
from engine.ledger.database import Connection


def claim_of(asked: PaymentRequest) -> Claim:
    """The claim of a payment's idempotency key."""
    return Claim(
        account_id=asked.account_id,
        key=asked.idempotency_key,
        body_hash=bytes.fromhex(asked.body_hash),
        resource_id=asked.payment_id,
    )


async def find_answer_in_tx(
    conn: Connection, asked: PaymentRequest
) -> tuple[PaymentOutcome, payment.PaymentRow | None]:
    """What an earlier call with this key did: the outcome and the locked row of this request, or a conflict."""
    known = await find_key(conn, asked.account_id, asked.idempotency_key)
    taken_by = (
        known.body_hash
        if known is not None
        else await hash_in_a_lane(conn, asked.account_id, asked.idempotency_key, asked.payment_id)
    )
    if taken_by.hex() != asked.body_hash:
        return PaymentOutcome(body_hash=taken_by.hex(), key_conflict=True), None
    if known is None:
        raise InvariantBroken("an idempotency key was taken and is gone")
    if known.refusal is not None:
        return PaymentOutcome(body_hash=asked.body_hash, refusal=as_refusal(known.refusal)), None
    row = await payment.get_row_in_tx(conn, asked.payment_id)
    outcome = PaymentOutcome(
        body_hash=asked.body_hash, status=PaymentStatus(row.status), delivered_msat=row.delivered_msat
    )
    return outcome, row


async def hash_in_a_lane(conn: Connection, account_id: AccountId, key: str, *ids: str) -> bytes:
    """The body hash of the request that was accepted first with this key, and waits in a lane under one of the ids."""
    earlier = await find_earlier_requests(conn, [(account_id, key, PaymentId(each)) for each in ids])
    found = next((each for each in earlier if each is not None), None)
    if found is None:
        raise InvariantBroken("an idempotency key was taken and is gone")
    return found.body_hash


def in_the_callers_words(refused: EngineError, thing: str = "payment") -> Refusal:
    """Translate an error of the books for a caller: from accounts, floors and counters to wallet, limits and key."""
    if refused.code == "limit_exceeded":
        code, sentence, facts = exceeded(refused.fields)
        return Refusal(code=code, detail=sentence, fields=facts)
    if refused.code != "insufficient_funds" or "needed" not in refused.fields:
        return Refusal(code=refused.code, detail=refused.detail, fields=refused.fields)
    needed_msat = refused.fields["needed"]
    fields = {"needed_msat": needed_msat, "available_msat": refused.fields.get("available")}
    detail = f"This wallet has not enough available for {needed_msat:,} msat, the most that this {thing} may cost."
    return Refusal(code=refused.code, detail=detail, fields=fields)


def about_accounts(refused: Refused, payer: Payer) -> Refused:
    """The refusal for a caller when the books found an account locked or closed at this moment."""
    if refused.code == "account_locked":
        return may_not_send("locked")
    if refused.code == "account_closed":
        is_payer = refused.fields.get("account_id") == payer.ledger_account_id
        return may_not_send("closed") if is_payer else payee_closed()
    return refused


def as_refusal(kept: dict[str, Any]) -> Refusal:
    """A refusal as stored under its key."""
    return Refusal(code=kept["code"], detail=kept["detail"], fields=kept["fields"])
