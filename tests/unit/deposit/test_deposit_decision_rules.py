"""Which decision a deposit waits for, and what a search asks for."""

from dataclasses import replace

import pytest

from api.service.chain.search import read_question
from engine.domain.deposit import DepositStatus, Sight
from engine.domain.deposit_decision import Decidable, DepositDecisionKind, check_wallet, require_waiting
from engine.domain.errors import Invalid, Refused
from engine.views.chain_search import Question

pytestmark = pytest.mark.unit

RELEASE, ATTRIBUTE, FORGIVE = DepositDecisionKind
PENDING = Decidable(
    status=DepositStatus.PENDING, sight=Sight.MEMPOOL, place=None, is_released=False, has_receivable=False
)
HELD = replace(PENDING, status=DepositStatus.HELD, sight=Sight.MINED, place="pending")
SMALL = replace(HELD, status=DepositStatus.BELOW_MINIMUM)
NOBODYS = replace(HELD, status=DepositStatus.UNATTRIBUTED, place="suspense")
CREDITED = replace(HELD, status=DepositStatus.CREDITED, place="wallet")
RELEASED = replace(HELD, status=DepositStatus.CREDITED, is_released=True)
OWED = replace(PENDING, status=DepositStatus.REVERSED, sight=Sight.GONE, has_receivable=True)


def waits(kind: DepositDecisionKind, facts: Decidable) -> bool:
    try:
        require_waiting(kind, facts)
    except Refused as refused:
        if refused.code != "deposit_not_waiting":
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("facts", "kinds"),
    [
        (PENDING, []),
        (HELD, [RELEASE]),
        (SMALL, [RELEASE]),
        (NOBODYS, [ATTRIBUTE]),
        (CREDITED, []),
        (RELEASED, []),
        (replace(NOBODYS, status=DepositStatus.CREDITED, is_released=True), []),
        (replace(HELD, sight=Sight.GONE), []),
        (replace(NOBODYS, sight=Sight.MEMPOOL), []),
        (replace(SMALL, place=None), []),
        (OWED, [FORGIVE]),
        (replace(OWED, has_receivable=False), []),
        (replace(OWED, sight=Sight.MEMPOOL), []),
        (replace(OWED, sight=Sight.MINED), []),
        (replace(CREDITED, has_receivable=True), [FORGIVE]),
        (replace(HELD, has_receivable=True), [RELEASE, FORGIVE]),
    ],
)
def test_a_deposit_waits_for_these_decisions_only(facts: Decidable, kinds: list[DepositDecisionKind]) -> None:
    assert [kind for kind in DepositDecisionKind if waits(kind, facts)] == kinds


def test_only_an_attribution_names_a_wallet() -> None:
    check_wallet(ATTRIBUTE, "wal_1")
    check_wallet(RELEASE, None)
    check_wallet(FORGIVE, None)
    for kind, wallet_id in ((ATTRIBUTE, None), (RELEASE, "wal_1"), (FORGIVE, "wal_1")):
        with pytest.raises(Invalid):
            check_wallet(kind, wallet_id)


TXID = "0A" * 32


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (TXID, Question(txid=TXID.lower())),
        (f" {TXID}:0 ", Question(txid=TXID.lower(), vout=0)),
        (f"{TXID}:4294967", Question(txid=TXID.lower(), vout=4294967)),
        ("BCRT1QABCDEF", Question(text="bcrt1qabcdef")),
        ("mzBc4XEFSdzCDcTxAgf6EZXgsZWpztRhef", Question(text="mzBc4XEFSdzCDcTxAgf6EZXgsZWpztRhef")),
        ("dep_0abc", Question(text="dep_0abc")),
    ],
)
def test_a_text_asks_for_a_transaction_an_output_an_address_or_a_deposit(text: str, asked: Question) -> None:
    assert read_question(text) == asked


@pytest.mark.parametrize("text", ["", "abc", f"{TXID}:", f"{TXID}:1:2", f"{TXID} :1", "a-b-c-d", "٣" * 64, f"{TXID}:٣"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_question(text)
