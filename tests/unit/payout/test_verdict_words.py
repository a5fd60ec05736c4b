"""What a node's words about a transaction mean, in the versions and kinds of nodes that we know."""

import pytest

from engine.clients.bitcoind.fault import RpcFault
from engine.clients.bitcoind.verdict import Fate, Refusal, Verdict, by_fault, by_words

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "words", "fate", "refusal"),
    [
        (-27, "Transaction already in block chain", Fate.CONFIRMED, None),
        (-27, "Transaction outputs already in utxo set", Fate.CONFIRMED, None),
        (-26, "txn-already-known", Fate.CONFIRMED, None),
        (-26, "txn-already-in-mempool", Fate.ACCEPTED, None),
        (-26, "txn-same-nonwitness-data-in-mempool", Fate.ACCEPTED, None),
        (-25, "bad-txns-inputs-missingorspent", Fate.MISSING_INPUTS, None),
        (-25, "Missing inputs", Fate.MISSING_INPUTS, None),
        (
            -25,
            "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
            Fate.REFUSED,
            Refusal.FEE_TOO_HIGH,
        ),
        (-26, "min relay fee not met, 10 < 110", Fate.REFUSED, Refusal.BELOW_FLOOR),
        (-26, "mempool min fee not met, 110 < 234", Fate.REFUSED, Refusal.BELOW_FLOOR),
        (-26, "mempool full", Fate.REFUSED, Refusal.BELOW_FLOOR),
        (
            -26,
            "insufficient fee, rejecting replacement ab; new feerate 1 <= old feerate 2",
            Fate.REFUSED,
            Refusal.OUTBID,
        ),
        (-26, "insufficient feerate: does not improve feerate diagram", Fate.REFUSED, Refusal.OUTBID),
        (-26, "replacement-adds-unconfirmed, replacement ab adds unconfirmed input", Fate.REFUSED, Refusal.OUTBID),
        (-26, "too many potential replacements, rejecting replacement", Fate.REFUSED, Refusal.OUTBID),
        (-26, "txn-mempool-conflict", Fate.REFUSED, Refusal.OUTBID),
        (-26, "too-long-mempool-chain, too many unconfirmed ancestors", Fate.REFUSED, Refusal.CHAIN_TOO_LONG),
        (-26, "non-final", Fate.REFUSED, Refusal.NOT_FINAL),
        (-26, "non-BIP68-final", Fate.REFUSED, Refusal.NOT_FINAL),
        (-26, "bad-txns-premature-spend-of-coinbase, tried to spend", Fate.REFUSED, Refusal.NOT_FINAL),
        (-26, "dust", Fate.REFUSED, Refusal.DUST),
        (-26, "dust-nonanchor", Fate.REFUSED, Refusal.DUST),
        (-26, "bad-txns-in-belowout, value in (0.01) < value out (0.011)", Fate.REFUSED, Refusal.INVALID),
        (-26, "mempool-script-verify-flag-failed (Witness program hash mismatch)", Fate.REFUSED, Refusal.INVALID),
        (-22, "TX decode failed. Make sure the tx has at least one input.", Fate.REFUSED, Refusal.INVALID),
        (-26, "a reason of the next version", Fate.REFUSED, Refusal.OTHER),
        (-25, "", Fate.REFUSED, Refusal.OTHER),
    ],
)
def test_words_are_understood(code: int, words: str, fate: Fate, refusal: Refusal | None) -> None:
    assert by_fault(RpcFault(code, words)) == Verdict(fate=fate, refusal=refusal, words=words)


@pytest.mark.parametrize("code", [-1, -4, -8, -31, -32601])
def test_an_error_about_something_else_is_no_verdict(code: int) -> None:
    assert by_fault(RpcFault(code, "txn-already-known")) is None


def test_unforeseen_words_are_kept_and_made_harmless() -> None:
    verdict = by_words("strange\u0000\n\u202ewords \ud800" + "x" * 10_000)
    assert (verdict.fate, verdict.refusal) == (Fate.REFUSED, Refusal.OTHER)
    assert verdict.words.startswith("strange words \ufffdx")
    assert len(verdict.words.encode()) <= 300
    assert not verdict.is_known
