"""What a node's payment has cost: by the attempts that were settled, whatever else stands beside them."""

import pytest

from activities.reconciliation.matching import settle_ref
from engine.clients.lnd import client, history
from engine.clients.lnd.client import NodePayment, NodePaymentStatus
from engine.clients.lnd.settled import read_settled
from engine.clients.lndrpc import lightning_pb2 as ln

pytestmark = pytest.mark.unit

SUCCEEDED, FAILED, IN_FLIGHT = ln.HTLCAttempt.SUCCEEDED, ln.HTLCAttempt.FAILED, ln.HTLCAttempt.IN_FLIGHT


def part(status: "ln.HTLCAttempt.HTLCStatus.ValueType", amount_msat: int, fee_msat: int) -> ln.HTLCAttempt:
    route = ln.Route(total_amt_msat=amount_msat + fee_msat, total_fees_msat=fee_msat, total_time_lock=600)
    return ln.HTLCAttempt(status=status, route=route, preimage=b"\x01" if status == SUCCEEDED else b"")


def paid(*parts: ln.HTLCAttempt, status: "ln.Payment.PaymentStatus.ValueType" = ln.Payment.SUCCEEDED) -> ln.Payment:
    """Of 100,000 msat."""
    return ln.Payment(
        payment_hash="ab" * 32, status=status, value_msat=100_000, fee_msat=7, payment_preimage="01", htlcs=parts
    )


@pytest.mark.parametrize(
    ("parts", "delivered_msat", "fee_msat"),
    [
        ([part(SUCCEEDED, 100_000, 350)], 100_000, 350),
        ([part(SUCCEEDED, 60_000, 200), part(SUCCEEDED, 40_000, 150)], 100_000, 350),
        ([part(FAILED, 100_000, 90), part(SUCCEEDED, 100_000, 350)], 100_000, 350),
        ([part(SUCCEEDED, 60_000, 200), part(FAILED, 40_000, 150)], 60_000, 200),
        ([part(SUCCEEDED, 60_000, 200), part(IN_FLIGHT, 40_000, 150)], 60_000, 200),
        ([part(SUCCEEDED, 100_001, 0)], 100_001, 0),
        ([], 100_000, 7),
        ([part(FAILED, 40_000, 150)], 100_000, 7),
        ([ln.HTLCAttempt(status=SUCCEEDED)], 100_000, 7),
        ([ln.HTLCAttempt(status=SUCCEEDED), part(SUCCEEDED, 40_000, 150)], 100_000, 7),
    ],
)
def test_the_payee_has_got_what_the_settled_attempts_say(
    parts: list[ln.HTLCAttempt], delivered_msat: int, fee_msat: int
) -> None:
    settled = read_settled(paid(*parts))
    assert (settled.delivered_msat, settled.fee_msat) == (delivered_msat, fee_msat)
    assert settled.total_msat == delivered_msat + fee_msat


def _read(payment: ln.Payment) -> NodePayment:
    return client._read_payment(payment)


def test_booking_and_comparing_read_the_same() -> None:
    payment = paid(part(SUCCEEDED, 60_000, 200), part(FAILED, 40_000, 150))
    known, remembered = _read(payment), history._paid_out(payment)
    assert known.delivered_msat is not None
    assert (known.status, known.preimage) == (NodePaymentStatus.SUCCEEDED, "01")
    assert known.delivered_msat + known.fee_msat == remembered.total_msat == 60_200
    assert settle_ref(remembered.payment_hash) == f"ln:{'ab' * 32}:settle"


def test_while_it_is_not_final_nothing_is_said_of_what_the_payee_has_got() -> None:
    parts = part(SUCCEEDED, 60_000, 200), part(IN_FLIGHT, 40_000, 150)
    known = _read(paid(*parts, status=ln.Payment.IN_FLIGHT))
    assert (known.status, known.delivered_msat, known.preimage_seen) == (NodePaymentStatus.IN_FLIGHT, None, True)
    assert known.claimed_msat == 60_200


def test_a_reason_that_a_later_lnd_has_is_no_error() -> None:
    reason = ln.PaymentFailureReason.ValueType(99)
    known = _read(ln.Payment(payment_hash="ab" * 32, status=ln.Payment.FAILED, failure_reason=reason, payment_index=3))
    assert (known.status, known.failure_reason) == (NodePaymentStatus.FAILED, "99")
    known = _read(ln.Payment(status=ln.Payment.FAILED, failure_reason=ln.FAILURE_REASON_NO_ROUTE))
    assert known.failure_reason == "FAILURE_REASON_NO_ROUTE"


@pytest.mark.parametrize(("number", "stage"), [(0, "cooperative_close"), (99, "closed_99")])
def test_an_end_of_a_channel_that_a_later_lnd_has_is_no_error(number: int, stage: str) -> None:
    closed = ln.ChannelCloseSummary(close_type=ln.ChannelCloseSummary.ClosureType.ValueType(number))
    assert history._ended(closed, []).stage == stage
