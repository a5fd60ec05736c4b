"""Every reason for which bitcoind cannot be followed has a sentence and a remedy of its own."""

import pytest

from activities.chain.look import OTHER_CHAIN
from activities.chain.pool import WALLET_REPLACED
from api.service.chain.problem import explain
from engine.clients.bitcoind.fault import UNFORESEEN, Reason

pytestmark = pytest.mark.unit

STORED = [*Reason, OTHER_CHAIN, WALLET_REPLACED, UNFORESEEN]


@pytest.mark.parametrize("reason", STORED)
def test_a_reason_that_the_pump_stores_is_explained(reason: str) -> None:
    found, unknown = explain(reason), explain("something new")
    assert found.reason == reason
    assert found.detail not in {"", unknown.detail}
    assert found.remedy not in {"", unknown.remedy}


def test_no_two_reasons_have_the_same_sentence() -> None:
    assert len({explain(reason).detail for reason in STORED}) == len(STORED)
