"""What a payout does with each answer to its broadcast. The node's error is said by a fake, its state is real."""

import pytest

from engine.clients.bitcoind import fault
from engine.clients.bitcoind.fault import RpcFault
from engine.clients.bitcoind.verdict import Verdict, by_fault
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration

_REFUSED = [
    ("too-long-mempool-chain, too many descendants", "chain_too_long"),
    ("package-mempool-limits, possibly exceeds descendant count", "chain_too_long"),
    ("non-final", "not_final"),
    ("non-BIP68-final", "not_final"),
    ("Fee exceeds maximum configured by user", "fee_too_high"),
    ("max-fee-exceeded", "fee_too_high"),
    ("dust", "dust"),
    ("scriptpubkey", "script"),
    ("bad-txns-in-belowout", "invalid"),
    ("mandatory-script-verify-flag-failed (Signature must be zero)", "invalid"),
    ("txn-mempool-conflict", "outbid"),
    ("insufficient fee, rejecting replacement", "outbid"),
    ("words that nobody has foreseen", "other"),
    ("", "other"),
]


def _fake_answer(desk: PayoutDesk, monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    verdict = by_fault(RpcFault(code, message))
    assert verdict is not None

    async def broadcast(raw: str) -> Verdict:
        return verdict

    monkeypatch.setattr(desk.spending, "broadcast", broadcast)


@pytest.mark.parametrize(("words", "refusal"), _REFUSED)
async def test_one_that_is_rejected_is_seen_tried_again_with_pauses_and_not_lost(
    payout_desk: PayoutDesk, saver: Depositor, monkeypatch: pytest.MonkeyPatch, words: str, refusal: str
) -> None:
    """Error -26. The node takes it when it has changed its mind."""
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=2)
    with monkeypatch.context() as patched:
        _fake_answer(payout_desk, patched, fault.REJECTED, words)
        for _ in range(3):
            await payout_desk.step(made)
            state = await payout_desk.state(made)
            assert (state.needs_operator, state.step_due) == (True, False)
            assert state.waits_for == f"the node does not take it ({refusal}): {words}"
    assert len((await payout_desk.story(made)).versions) == 1
    await payout_desk.step(made, times=2)
    story = await payout_desk.story(made)
    assert story.payout.booked_ref is not None
    assert not (await payout_desk.state(made)).needs_operator
    await payout_desk.bank.prove()


@pytest.mark.parametrize("words", ["min relay fee not met, 1 < 2", "mempool min fee not met", "mempool full"])
async def test_one_below_a_floor_that_is_low_again_waits_for_its_next_look(
    payout_desk: PayoutDesk, saver: Depositor, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The node refuses it, and its floor allows it a moment later. Nobody pays more for that."""
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=2)
    with monkeypatch.context() as patched:
        _fake_answer(payout_desk, patched, fault.REJECTED, words)
        await payout_desk.step(made)
    state = await payout_desk.state(made)
    assert "(below_floor)" in state.waits_for
    await payout_desk.step(made, times=2)
    story = await payout_desk.story(made)
    assert (len(story.versions), story.payout.problem) == (1, None)
    assert story.payout.booked_ref is not None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (fault.ALREADY_IN_CHAIN, "Transaction outputs already in utxo set"),
        (fault.REJECTED, "txn-already-known"),
        (fault.REJECTED, "txn-already-in-mempool"),
    ],
)
async def test_one_that_is_known_already_was_sent(
    payout_desk: PayoutDesk, saver: Depositor, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    """Somebody sends it between the look for a block and the broadcast, and a block takes it."""
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=2)
    with monkeypatch.context() as patched:
        _fake_answer(payout_desk, patched, code, words)
        await payout_desk.step(made)
    raw = (await payout_desk.story(made)).current.raw
    assert raw is not None
    payout_desk.bank.chain.mine(txs=[raw])
    await payout_desk.bank.follow()
    await payout_desk.step(made, times=2)
    story = await payout_desk.story(made)
    assert (story.payout.status, story.payout.problem, len(story.versions)) == ("confirmed", None, 1)
    assert story.payout.booked_ref is not None
    await payout_desk.bank.prove()


async def test_missing_inputs_of_a_bump_are_those_of_its_confirmed_first_version(
    payout_desk: PayoutDesk, saver: Depositor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error -25: a block takes the first version just before the bump is sent."""
    made, _ = await payout_desk.booked(saver, 50_000)
    await payout_desk.pay_more(made, 9_000)
    await payout_desk.step(made, times=2)
    story = await payout_desk.story(made)
    raw, bump = story.versions[0].raw, story.versions[1].raw
    assert raw is not None
    assert bump is not None
    payout_desk.bank.chain.mine(txs=[raw])
    verdict = await payout_desk.spending.broadcast(bump)
    assert verdict.fate == "missing_inputs"
    await payout_desk.step(made, times=2)
    await payout_desk.bank.follow()
    await payout_desk.step(made, times=2)
    story = await payout_desk.story(made)
    assert (story.payout.confirmed_version, story.payout.problem) == (1, None)
    assert story.payout.fee_booked_sat == story.versions[0].fee_sat
    assert len(story.versions) == 2
    await payout_desk.bank.prove()
