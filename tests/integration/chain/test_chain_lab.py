"""What bitcoind says of payments, replacements, reorganisations and accidents: facts that the engine relies on."""

from typing import Any

import pytest

from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration


def hot(chain: Chain, txid: str) -> tuple[int, bool]:
    """What the wallet says of a transaction: confirmations, and whether the mempool has it."""
    found: dict[str, Any] = chain.rpc("hot").call("gettransaction", txid)
    return found["confirmations"], found.get("in_mempool", False)


def test_a_payment_is_seen_mined_and_taken_back(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    assert hot(chain, sent.txid) == (0, True)
    chain.mine()
    assert hot(chain, sent.txid) == (1, False)
    chain.reorg(1, with_=[chain.double_spend(sent)])
    assert hot(chain, sent.txid) == (-2, False)
