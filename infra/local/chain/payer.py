"""A wallet that is not the bank's: it pays, pays another way instead, and makes what no ordinary wallet makes.

Its transactions are put together here and signed by the node, so that each choice is the test's: which coins, how
often an address is paid, what replaces what. They have no lock time, which Bitcoin Knots might not relay.
"""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from infra.local.bitcoin_rpc import BitcoinRpc
from infra.local.chain.block import Coin, bare_multisig, unsigned
from infra.local.parts.store import Failed


@dataclass(frozen=True)
class Sent:
    """A transaction of the payer, and the output in question. `payments` are its outputs without the change."""

    txid: str
    vout: int
    hex: str
    coins: tuple[Coin, ...]
    payments: tuple[tuple[str, int], ...]

    @property
    def outpoint(self) -> str:
        """`txid:vout`."""
        return f"{self.txid}:{self.vout}"


class Rpc(Protocol):
    """How the node is reached, or one of its wallets: `chain.rpc("hot").call("getbalances")`."""

    def __call__(self, wallet: str | None = None) -> BitcoinRpc: ...


class Payer:
    """One wallet of one node."""

    def __init__(self, rpc: Rpc, wallet: str) -> None:
        self.rpc, self.payer = rpc, wallet
        self._turn = threading.RLock()

    def call(self, method: str, *params: object, wallet: str | None = None) -> Any:  # noqa: ANN401 - JSON
        """One call; raises `RpcError`."""
        return self.rpc(wallet).call(method, *params)

    def sync(self) -> None:
        """Wait until wallets, indexes and ZMQ have heard of all that the node knows: they do so a moment later."""
        self.call("syncwithvalidationinterfacequeue")

    def address(self, wallet: str) -> str:
        """A new one of this wallet, bech32."""
        return str(self.call("getnewaddress", "", "bech32", wallet=wallet))

    def pay(self, address: str, amount_sat: int, *, fee_rate: float = 5, replaceable: bool = True) -> Sent:
        """One payment, in the mempool when this returns. `fee_rate` is in satoshi per virtual byte."""
        return self.pay_many([(address, amount_sat)], fee_rate=fee_rate, replaceable=replaceable)[0]

    def pay_many(
        self,
        payments: Mapping[str, int] | Sequence[tuple[str, int]],
        *,
        fee_rate: float = 5,
        replaceable: bool = True,
    ) -> list[Sent]:
        """One transaction of many payments, in this order; pairs may name one address twice. One `Sent` for each."""
        listed = tuple(payments.items() if isinstance(payments, Mapping) else payments)
        with self._turn:
            coins = self._choose(sum(amount_sat for _, amount_sat in listed))
            content = self._signed(coins, self._outputs(listed), fee_rate, replaceable=replaceable)
            txid = self.send(content)
        return [Sent(txid, vout, content, coins, listed) for vout in range(len(listed))]

    def bump(self, sent: Sent, *, fee_rate: float, amount_sat: int | None = None, to: str | None = None) -> Sent:
        """Replace a payment in the mempool by one of the same coins, at another fee rate, and perhaps with another
        amount or to somebody else. What is replaced may itself be a replacement.

        Raises `RpcError` (-26) when the fee is not above the old one.
        """
        address, old_sat = sent.payments[sent.vout]
        payments = list(sent.payments)
        payments[sent.vout] = to or address, old_sat if amount_sat is None else amount_sat
        content = self._signed(sent.coins, self._outputs(payments), fee_rate)
        return Sent(self.send(content), sent.vout, content, sent.coins, tuple(payments))

    def double_spend(self, sent: Sent, *, fee_rate: float = 50) -> str:
        """A transaction (hex) that spends the same coins elsewhere. Nobody has seen it yet."""
        return self._signed(sent.coins, [], fee_rate)

    def send(self, content: str) -> str:
        """Broadcast a transaction, perhaps once more, and wait until the wallets know of it; returns its txid.

        What is in the mempool already stays there.
        """
        txid = str(self.call("sendrawtransaction", content))
        self.sync()
        return txid

    return_ = send

    def multisig(self, address: str, amount_sat: int, also_sat: int) -> Sent:
        """A payment to a bare 1-of-2 multisig with this address's key, and perhaps to the address; not broadcast."""
        wallets = self.call("listwallets")
        infos = [self.call("getaddressinfo", address, wallet=wallet) for wallet in wallets]
        key = next(info["pubkey"] for info in infos if info["ismine"])
        other = self.call("getaddressinfo", self.address(self.payer), wallet=self.payer)["pubkey"]
        outputs = [(bare_multisig([key, other]), amount_sat)]
        payments = [("", amount_sat)]
        if also_sat:
            outputs += self._outputs([(address, also_sat)])
            payments.append((address, also_sat))
        with self._turn:
            coins = self._choose(amount_sat + also_sat)
            content = self._signed(coins, outputs, 5)
            return Sent(self.call("decoderawtransaction", content)["txid"], 0, content, coins, tuple(payments))

    def _choose(self, amount_sat: int) -> tuple[Coin, ...]:
        """The fewest coins; first the deepest, which no reorganisation takes away."""
        found: list[Coin] = []
        for each in sorted(self._unspent(), key=lambda each: -int(each["confirmations"])):
            found.append(Coin(each["txid"], each["vout"], satoshi(each["amount"]), each["scriptPubKey"]))
            if sum(coin.amount_sat for coin in found) > amount_sat + len(found) * 100_000:
                return tuple(found)
        raise Failed(f"The wallet {self.payer} has no {amount_sat} sat.")

    def _unspent(self) -> Iterable[dict[str, Any]]:
        return [each for each in self.call("listunspent", 0, wallet=self.payer) if each["safe"]]

    def _outputs(self, payments: Iterable[tuple[str, int]]) -> list[tuple[bytes, int]]:
        return [(self.script(address), amount_sat) for address, amount_sat in payments]

    def script(self, address: str) -> bytes:
        """What an output to this address says."""
        return bytes.fromhex(self.call("validateaddress", address)["scriptPubKey"])

    def _signed(
        self,
        coins: Sequence[Coin],
        outputs: Sequence[tuple[bytes, int]],
        fee_rate: float,
        *,
        replaceable: bool = True,
    ) -> str:
        """A whole transaction with change; signed twice, since its size says its fee."""
        change = self.script(self.address(self.payer))
        left_sat = sum(coin.amount_sat for coin in coins) - sum(amount_sat for _, amount_sat in outputs)

        spent = [
            {
                "txid": coin.txid,
                "vout": coin.vout,
                "scriptPubKey": coin.script,
                "amount": f"{coin.amount_sat // 10**8}.{coin.amount_sat % 10**8:08d}",
            }
            for coin in coins
        ]

        def sign(change_sat: int) -> str:
            made = unsigned(coins, [*outputs, (change, change_sat)], replaceable=replaceable)
            signed = self.call("signrawtransactionwithwallet", made, spent, wallet=self.payer)
            if not signed["complete"]:
                raise Failed(f"The wallet {self.payer} cannot sign: {signed['errors']}.")
            return str(signed["hex"])

        size = self.call("decoderawtransaction", sign(left_sat))["vsize"]
        return sign(left_sat - math.ceil(size * fee_rate))


def satoshi(amount: float) -> int:
    """An amount of an answer, in whole satoshi."""
    return int(Decimal(str(amount)) * 10**8)
