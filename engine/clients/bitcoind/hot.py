"""The hot wallet for those who spend from it: what to spend with, who signs, and what it costs."""

from dataclasses import dataclass

from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fees import FeeSource
from engine.clients.bitcoind.signer import Signer
from engine.clients.bitcoind.spending import Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class HotWallet:
    """One wallet of one node."""

    name: str
    chain: Bitcoind
    spending: Spending
    signer: Signer
    fees: FeeSource
    address_type: str
    """Of its change: `bech32` or `bech32m`."""
