"""The bank's wallet on a test's own bitcoind, as payouts use it: coins come in, drafts are signed and sent.

coin = spender.coin(100_000)
signed = await spender.signed([coin], [(address, 90_000)])
await spender.spending.broadcast(signed.raw)
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.signer import SignedTransaction, WalletSigner
from engine.clients.bitcoind.spending import Spending
from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.script import output_script
from tests.helpers.bitcoind_client import opened
from tests.helpers.chain import STRANGER, Chain


class Spender:
    """The client of a wallet, with what a payout would have decided."""

    def __init__(self, chain: Chain, rpc: Rpc, wallet: str) -> None:
        self.chain, self.rpc, self.wallet = chain, rpc, wallet
        self.spending, self.signer = Spending(rpc, wallet), WalletSigner(rpc, wallet)
        self.stranger = chain.address(STRANGER)

    def coin(self, amount_sat: int, *, mined: bool = True) -> Outpoint:
        """A coin of the wallet that a stranger has paid."""
        return self.coins([amount_sat], mined=mined)[0]

    def coins(self, amounts_sat: Sequence[int], *, mined: bool = True) -> list[Outpoint]:
        """Coins of one transaction."""
        sent = self.chain.pay_many([(self.chain.address(self.wallet), amount_sat) for amount_sat in amounts_sat])
        if mined:
            self.chain.mine()
        return [Outpoint(txid=Txid(each.txid), vout=each.vout) for each in sent]

    async def draft(self, inputs: Sequence[Outpoint], outputs: Sequence[tuple[str, int]]) -> str:
        """An unsigned transaction to these addresses."""
        listed = [(output_script(address), Sat(amount_sat)) for address, amount_sat in outputs]
        return await self.spending.create_psbt(inputs, listed)

    async def signed(self, inputs: Sequence[Outpoint], outputs: Sequence[tuple[str, int]]) -> SignedTransaction:
        """The same with signatures; nobody has seen it yet."""
        return await self.signer.sign(await self.draft(inputs, outputs))

    async def to_stranger(self, inputs: Sequence[Outpoint], amount_sat: int) -> SignedTransaction:
        """One output to somebody else. What the inputs hold beyond it is the fee."""
        return await self.signed(inputs, [(self.stranger, amount_sat)])

    async def mine(self) -> None:
        """A block with all that the mempool holds."""
        await asyncio.to_thread(self.chain.mine)


@asynccontextmanager
async def spender_of(chain: Chain, wallet: str = "hot", *, over_line: bool = False) -> AsyncIterator[Spender]:
    """A client that is closed at the end; `over_line`: through the line that a test can break."""
    async with opened(chain.line.url if over_line else chain.url, chain.auth_file) as rpc:
        yield Spender(chain, rpc, wallet)
