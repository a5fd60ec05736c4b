"""One class describes the row of a payment: its columns, their types, and what a request fills."""

from dataclasses import asdict

import pytest

from engine.bank import payment
from engine.contracts.payment import PaymentRequest
from engine.domain.fee import Charge
from engine.domain.ids import AccountId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat

pytestmark = pytest.mark.unit

CHARGE = Charge(fee_msat=Msat(100), version=3, level=2)
ASKED = PaymentRequest(
    payment_id=PaymentId("pay_1"),
    account_id=AccountId("acct_1"),
    wallet_id=WalletId("wal_1"),
    idempotency_key="k",
    body_hash="ab" * 32,
    destination="lnbc1",
    bolt11="lnbc1",
    payment_hash=PaymentHash("cd" * 32),
    amount_in_invoice=True,
    amount_msat=Msat(100_000),
    max_fee_msat=Msat(1_000),
    memo="coffee",
    external_id="order 7",
)
COPIED = {
    "id": "pay_1",
    "account_id": "acct_1",
    "wallet_id": "wal_1",
    "destination": "lnbc1",
    "amount_msat": 100_000,
    "payment_hash": "cd" * 32,
    "bolt11": "lnbc1",
    "amount_in_invoice": True,
    "memo": "coffee",
    "external_id": "order 7",
    "service_fee_msat": 100,
    "fee_version": 3,
    "fee_level": 2,
    "workflow_id": "w",
    "batch_id": None,
    "batch_place": None,
}


def test_a_lightning_payment_is_pending_at_its_node() -> None:
    new = payment.new_lightning(
        ASKED,
        CHARGE,
        NodeName("lnd-1"),
        max_fee_msat=Msat(1_100),
        attempt=2,
        known_payment_index=7,
        workflow_id="w",
    )
    assert asdict(new) == {
        **COPIED,
        "kind": "lightning",
        "status": "pending",
        "max_fee_msat": 1_100,
        "payee_wallet_id": None,
        "node": "lnd-1",
        "attempt": 2,
        "known_payment_index": 7,
    }
    assert (new.routing_cap_msat, new.total_msat, new.charge) == (1_000, 101_100, CHARGE)


def test_an_internal_payment_is_settled_as_it_is_written() -> None:
    new = payment.new_internal(ASKED, CHARGE, WalletId("wal_2"), "w")
    assert asdict(new) == {
        **COPIED,
        "kind": "internal",
        "status": "settled",
        "max_fee_msat": 100,
        "payee_wallet_id": "wal_2",
        "node": None,
        "attempt": None,
        "known_payment_index": 0,
    }
    assert (new.routing_cap_msat, new.total_msat) == (0, 100_100)


def test_each_field_is_a_column_with_the_type_of_its_values() -> None:
    types = payment._TYPES
    assert set(types) == set(COPIED) | {
        *("kind", "status", "max_fee_msat", "payee_wallet_id", "node", "attempt", "known_payment_index")
    }
    texts = {name for name, kind in types.items() if kind == "text[]"}
    assert {name for name, kind in types.items() if kind == "boolean[]"} == {"amount_in_invoice"}
    assert {name for name, kind in types.items() if kind == "bigint[]"} == set(types) - texts - {"amount_in_invoice"}
    assert {"id", "payment_hash", "batch_id", "status", "memo"} <= texts
    assert {"amount_msat", "attempt", "fee_level", "batch_place"}.isdisjoint(texts)
