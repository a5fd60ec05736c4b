"""How a transaction gets its signatures. No other module knows where the keys are.

    signer = WalletSigner(rpc, "hot")
    signed = await signer.sign(psbt)

Signing has no effect outside: it may be repeated, and nothing is known to the world before the bytes are broadcast.
Whoever asks for signatures compares what comes back with what he wanted signed.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from engine.clients.bitcoind.fault import UNFORESEEN, translated
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import InvariantBroken
from engine.domain.ids import Txid
from engine.domain.withdrawal.transaction import parse_transaction_hex

INCOMPLETE = "signature_incomplete"
_SIGNING_S = 120
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A transaction with all signatures; `txid` is computed from the bytes."""

    raw: str
    """In hex."""
    txid: Txid


class Signer(Protocol):
    """Whatever has the keys: a wallet of the node, a device, a service."""

    async def sign(self, psbt: str) -> SignedTransaction:
        """Sign all inputs of a PSBT (BIP 174, base64). A repeat gives the same txid.

        Raises Unavailable with a `reason` while the keys cannot be used, such as `wallet_locked`, and InvariantBroken
        (`signature_incomplete`) when there is no key for an input: a repeat would not help.
        """
        ...


class WalletSigner:
    """A wallet of bitcoind that holds the private keys."""

    def __init__(self, rpc: Rpc, wallet: str) -> None:
        self._rpc, self._wallet = rpc, wallet

    async def sign(self, psbt: str) -> SignedTransaction:
        """As `Signer`. What a wallet does not know of its coins it cannot sign."""
        params = (psbt, True, "DEFAULT", False, True)  # sign; each key's usual sighash; without key paths; finalize
        with translated("walletprocesspsbt"):
            told = await self._rpc.call("walletprocesspsbt", *params, wallet=self._wallet, timeout_s=_SIGNING_S)
        if not told["complete"]:
            raise await self._incomplete(told["psbt"])
        try:
            return SignedTransaction(raw=told["hex"], txid=parse_transaction_hex(told["hex"]).txid)
        except ValueError as error:
            raise InvariantBroken(f"bitcoind has signed what is no transaction: {error}", code=UNFORESEEN) from None

    async def _incomplete(self, psbt: str) -> InvariantBroken:
        with translated("decodepsbt"):
            told: Any = await self._rpc.call("decodepsbt", psbt)
        places = [
            f"{spent['txid']}:{spent['vout']}"
            for spent, given in zip(told["tx"]["vin"], told["inputs"], strict=True)
            if not given.keys() & {"final_scriptwitness", "final_scriptSig"}
        ]
        named = ", ".join(places[:_NAMED]) + (" and others" if len(places) > _NAMED else "")
        return InvariantBroken(
            f"The wallet {self._wallet} has no key for {len(places)} of {len(told['inputs'])} inputs: {named}.",
            code=INCOMPLETE,
            unsigned=len(places),
        )
