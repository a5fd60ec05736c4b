"""What a user without a bank would do: one payment after the other from a wallet of bitcoind."""

import asyncio
import time

from infra.bench.chain.bystander import foreign_address
from infra.bench.chain.deposits import Bank
from infra.bench.chain.spent import Spent, sent_by
from infra.bench.contest import Begin, Contestant, Work, measured
from infra.bench.servers import FEE_RATE


class ByHand(Contestant):
    """The same payments one by one from a wallet of bitcoind, at the same fee rate. Nobody books them."""

    components = ("bitcoind",)

    def __init__(self, bank: Bank, count: int, amount_sat: int) -> None:
        self._amount_sat = amount_sat
        self.name = f"{count:,} by sendtoaddress"
        self.spent = Spent()
        self._bank, self._count = bank, count

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        begin()
        took_ms: list[float] = []
        began = time.monotonic()
        for _ in range(self._count):
            start = time.monotonic()
            await asyncio.to_thread(self._pay)
            took_ms.append(1000 * (time.monotonic() - start))
        elapsed_s = time.monotonic() - began
        await asyncio.to_thread(self._bank.outsider.mine)
        return measured(took_ms, elapsed_s)

    def _pay(self) -> None:
        outsider = self._bank.outsider
        amount = f"{self._amount_sat / 10**8:.8f}"
        words = (foreign_address(), amount, "", "", False, True, None, "unset", None, FEE_RATE // 1000)
        txid = outsider.call("sendtoaddress", *words, wallet=outsider.payer)
        sent = sent_by(outsider, txid, outsider.payer)
        self.spent.count += sent.count
        self.spent.vbytes += sent.vbytes
        self.spent.fee_sat += sent.fee_sat

    async def check(self) -> None:
        """Nothing of ours has changed."""
        await self._bank.people.check()
