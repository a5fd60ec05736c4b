"""A signer that signs something else than what was planned: nothing of it is stored."""

from collections.abc import Callable

import pytest

from activities.payout.sign import sign
from engine.clients.bitcoind.signer import SignedTransaction
from engine.domain.errors import InvariantBroken
from engine.domain.withdrawal.transaction import Tx, parse_transaction_hex
from infra.local.bitcoin_rpc import HOT
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration

Change = Callable[[Chain, str], str]
"""What the signer has signed instead: both in hex, the first one without signatures."""


class OtherSigner:
    """A fake: it makes another transaction of what it is given, and has the wallet's real keys for that."""

    def __init__(self, chain: Chain, change: Change, sighash: str) -> None:
        self._chain, self._change, self._sighash = chain, change, sighash

    async def sign(self, psbt: str) -> SignedTransaction:
        combined = self._chain.call("walletprocesspsbt", psbt, True, "ALL", False, True, wallet=HOT)["hex"]
        bare = self._change(self._chain, _bare(parse_transaction_hex(combined)))
        signed = self._chain.call("signrawtransactionwithwallet", bare, [], self._sighash, wallet=HOT)["hex"]
        return SignedTransaction(raw=signed, txid=parse_transaction_hex(signed).txid)


def _bare(tx: Tx, *, sequence: int | None = None, locktime: int | None = None, version: int = 2, cut: int = 0) -> str:
    parts = [version.to_bytes(4, "little"), bytes([len(tx.inputs)])]
    for each in tx.inputs:
        parts += [bytes.fromhex(each.outpoint.txid)[::-1], each.outpoint.vout.to_bytes(4, "little"), b"\x00"]
        parts.append((each.sequence if sequence is None else sequence).to_bytes(4, "little"))
    parts.append(bytes([len(tx.outputs)]))
    for script, amount_sat in tx.outputs:
        parts += [(amount_sat - cut).to_bytes(8, "little"), bytes([len(script)]), script]
    parts.append((tx.locktime if locktime is None else locktime).to_bytes(4, "little"))
    return b"".join(parts).hex()


def _same(_: Chain, bare: str) -> str:
    return bare


def _another_amount(_: Chain, bare: str) -> str:
    return _bare(parse_transaction_hex(bare), cut=1)


def _another_sequence(_: Chain, bare: str) -> str:
    return _bare(parse_transaction_hex(bare), sequence=0xFFFFFFFF)


def _a_lock_time(_: Chain, bare: str) -> str:
    return _bare(parse_transaction_hex(bare), locktime=1_000_000)


def _another_version(_: Chain, bare: str) -> str:
    return _bare(parse_transaction_hex(bare), version=1)


def _one_output_more(chain: Chain, bare: str) -> str:
    tx = parse_transaction_hex(bare)
    inputs = [{"txid": each.outpoint.txid, "vout": each.outpoint.vout} for each in tx.inputs]
    outputs = [{"data": "00"}, {chain.address(STRANGER): "0.00001"}]
    raw: str = chain.call("createrawtransaction", inputs, outputs, 0, True)
    return raw


@pytest.mark.parametrize(
    ("change", "sighash"),
    [
        (_another_amount, "ALL"),
        (_another_sequence, "ALL"),
        (_a_lock_time, "ALL"),
        (_another_version, "ALL"),
        (_one_output_more, "ALL"),
        *((_same, each) for each in ("NONE", "SINGLE", "ALL|ANYONECANPAY", "NONE|ANYONECANPAY")),
    ],
)
async def test_bytes_that_differ_from_the_plan_are_not_stored_and_the_right_ones_are(
    payout_desk: PayoutDesk, saver: Depositor, change: Change, sighash: str
) -> None:
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made)
    story = await payout_desk.story(made)
    with pytest.raises(InvariantBroken):
        await sign(
            payout_desk.bank.pool, payout_desk.spending, OtherSigner(payout_desk.bank.chain, change, sighash), story
        )
    story = await payout_desk.story(made)
    assert (story.payout.status, story.current.raw, story.current.txid) == ("planned", None, None)
    await payout_desk.step(made, times=3)
    assert (await payout_desk.story(made)).payout.booked_ref is not None
