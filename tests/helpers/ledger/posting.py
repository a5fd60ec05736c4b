"""A payment, a receipt, a node and a correction to be posted, with small ids for the accounts."""

from typing import Any

from engine.domain.correction import THROUGH, Correction
from engine.domain.deposit import Deposited, Outpoint
from engine.domain.fee import Charge
from engine.domain.ids import CorrectionId, DepositId, NodeName, PaymentHash, PaymentId, Txid
from engine.domain.money import Msat
from engine.domain.payment import Payment
from engine.ledger.book import Posting
from engine.ledger.chart import ChartIds
from engine.ledger.postings.node import adopted
from engine.ledger.postings.payment import settled
from engine.ledger.postings.receipt import credited
from engine.ledger.postings.suspense import unclaimed

IDS = ChartIds(
    outbox=1,
    suspense_in=2,
    capital=3,
    lightning_fees=4,
    transfer_fees=5,
    hot=900,
    deposits_pending=901,
    deposit_fees=902,
    loss=903,
    payout_queue=904,
    withdraw_fees=905,
    miner_withdraw=906,
    routing_cost=6,
)
CHANNELS, OPERATORS, ONCHAIN, ESCROW, ALICE, BOB = 7, 8, 9, 10, 11, 12
CODES = {
    "suspense:in": 2,
    "equity:capital": 3,
    "income:ln-fee": 4,
    THROUGH: OPERATORS,
    "asset:lnd:lnd-1:onchain": ONCHAIN,
    "liab:user:wal_1": ALICE,
}
HASH = PaymentHash("ab" * 32)


def payment(**changed: Any) -> Payment:
    known: dict[str, Any] = {
        "id": PaymentId("pay_1"),
        "workflow_id": "payment/acct_1/k",
        "amount_msat": Msat(100_000),
        "max_fee_msat": Msat(1_100),
        "payment_hash": HASH,
        "attempt": 2,
        "memo": "coffee",
        "service_fee_msat": Msat(100),
        "fee_version": 3,
        "fee_level": 2,
    }
    return Payment(**known | changed)


def settlement(fee_msat: int, delivered_msat: int | None = None, **changed: Any) -> Posting:
    delivered = None if delivered_msat is None else Msat(delivered_msat)
    row = payment(memo=None, **changed)
    return settled(IDS, row, payer=ALICE, channels=CHANNELS, fee_msat=Msat(fee_msat), delivered_msat=delivered)


def receipt(amount_msat: int, charge: Charge | None, *, beside_internal: bool = False) -> Posting:
    return credited(
        IDS,
        payment_hash=HASH,
        amount_msat=Msat(amount_msat),
        channels=CHANNELS,
        payee=BOB,
        charge=charge,
        beside_internal=beside_internal,
        workflow_id=f"receive/{HASH}",
    )


def stray(amount_msat: int, *, beside_internal: bool = False) -> Posting:
    return unclaimed(
        IDS,
        payment_hash=HASH,
        amount_msat=Msat(amount_msat),
        channels=CHANNELS,
        beside_internal=beside_internal,
        workflow_id=f"receive/{HASH}",
    )


def opening(channels: int, escrow: int, onchain: int) -> Posting | None:
    amounts = (Msat(channels), Msat(escrow), Msat(onchain))
    return adopted(IDS, NodeName("lnd-1"), (CHANNELS, ESCROW, ONCHAIN), amounts)


def correction(**changed: Any) -> Correction:
    known: dict[str, Any] = {
        "id": CorrectionId("corr_1"),
        "kind": "correction",
        "debit": "income:ln-fee",
        "credit": "liab:user:wal_1",
        "amount_msat": Msat(350),
        "reason": "charged by mistake",
        "case_id": "case_1",
        "reference": None,
        "proposed_by": "acct_a",
        "workflow_id": "correction/corr_1",
    }
    return Correction(**known | changed)


def deposit(amount_msat: int = 50_000_000) -> Deposited:
    return Deposited(
        id=DepositId("dep_1"),
        outpoint=Outpoint(txid=Txid("ef" * 32), vout=1),
        amount_msat=Msat(amount_msat),
        workflow_id="deposit-1",
    )
