"""Payouts of `Depositors` without Temporal: each step of one is taken by a call, so that a test can look in between.

desk = PayoutDesk(bank)
payout = await desk.formed(alice, 50_000)
await desk.step(payout, times=3)     draft, sign, send
await desk.step(payout)              book
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import AsyncMock, MagicMock

from temporalio.testing import ActivityEnvironment

from activities.batcher import Batchers
from activities.payout.child import Pulled, plan_in_tx
from activities.payout.payout import Payouts
from activities.payout.story import Story, read_state, read_story
from activities.withdrawal.withdrawal import Withdrawals
from engine.bank.withdrawal import coin, payout, version
from engine.clients.bitcoind.fees import FixedFees
from engine.clients.bitcoind.hot import HotWallet
from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.signer import WalletSigner
from engine.clients.bitcoind.spending import AddressType, Spending
from engine.contracts import workflow_ids
from engine.contracts.batcher import Batcher, Formed
from engine.contracts.payout import PayoutRef, PayoutState
from engine.contracts.withdrawal import WithdrawalRef, WithdrawalRequest
from engine.domain.deposit import Outpoint
from engine.domain.errors import Refused
from engine.domain.ids import PayoutId, Txid, WithdrawalId, id_for_key, new_id
from engine.domain.money import Sat
from engine.domain.withdrawal.fee_rate import Estimate
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.withdrawal import PayoutKind, Speed, VersionKind
from engine.ledger.chart import Chart
from engine.ledger.database import transaction
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.deposit.depositor import WALLET, Depositor, Depositors

_keys = itertools.count(1)
_WEIGHT = 1_000


@contextmanager
def own_coins_only(chain: Chain) -> Iterator[None]:
    """What other tests have left in the bank's wallet is frozen at the node for the block's length."""
    old = [{"txid": each["txid"], "vout": each["vout"]} for each in chain.call("listunspent", 0, wallet=WALLET)]
    chain.call("lockunspent", False, old, wallet=WALLET)
    try:
        yield
    finally:
        chain.call("lockunspent", True, wallet=WALLET)


class SetFees(FixedFees):
    """A market that a test moves."""

    rate_sat_kvb = 3_000

    async def estimate(self, target_blocks: int) -> Estimate:
        return replace(await super().estimate(target_blocks), rate_sat_kvb=self.rate_sat_kvb)


class PayoutDesk:
    """The activities of payouts, on the bank's own wallet."""

    def __init__(self, bank: Depositors, rpc: Rpc, *, change_type: AddressType = "bech32") -> None:
        client = MagicMock()
        client.get_workflow_handle.return_value.signal = AsyncMock()
        client.start_workflow = AsyncMock()
        self.bank, self.change_type = bank, change_type
        self.spending = Spending(rpc, WALLET, change_type=change_type)
        self.fees = SetFees(rpc, SetFees.rate_sat_kvb)
        wallet = HotWallet(
            name=WALLET,
            chain=bank.bitcoind,
            spending=self.spending,
            signer=WalletSigner(rpc, WALLET),
            fees=self.fees,
            address_type=change_type,
        )
        self._withdrawals = Withdrawals(bank.pool, Chart())
        self._batchers, self._payouts = Batchers(bank.pool, client, wallet), Payouts(bank.pool, client, wallet)
        self._run = ActivityEnvironment().run

    async def opened(
        self,
        user: Depositor,
        amount_sat: int,
        *,
        to: str | None = None,
        alone: bool = True,
        unlinked: bool = False,
        speed: Speed = Speed.FAST,
    ) -> WithdrawalId:
        """One withdrawal in the queue."""
        address, key = to or self.bank.chain.address(STRANGER), f"key-{next(_keys)}"
        request = WithdrawalRequest(
            withdrawal_id=WithdrawalId(id_for_key("wd", user.id, key)),
            account_id=user.id,
            wallet_id=user.wallet_id,
            idempotency_key=key,
            body_hash="ab" * 32,
            hot_wallet=WALLET,
            address=address,
            script=output_script(address).hex(),
            amount_sat=Sat(amount_sat),
            fee_from="balance",
            speed=speed,
            alone=alone,
            unlinked=unlinked,
            max_fee_sat=Sat(20_000),
            fee_cap_sat=Sat(5_000),
            wait_for_unlinked=unlinked,
        )
        opened = await self._run(self._withdrawals.open_withdrawal, request)
        assert opened.state is not None, opened
        return request.withdrawal_id

    async def cancelled(self, asked: WithdrawalId) -> bool:
        """Whether its owner could still take it back."""
        try:
            await self._run(self._withdrawals.cancel_withdrawal, WithdrawalRef(withdrawal_id=asked))
        except Refused as refused:
            if refused.code != "already_batched":
                raise
            return False
        return True

    async def look(self, speed: Speed, *, wallet: str = WALLET, flush: bool = True) -> Formed:
        """The batcher's look at its queue, as if an operator flushed it."""
        return await self._run(self._batchers.form_payouts, Batcher(wallet=wallet, speed=speed, flush=flush))

    async def form(self) -> list[PayoutId]:
        """What the batcher of fast ones makes of the queue."""
        return [PayoutId(ref.payout_id) for ref in (await self.look(Speed.FAST)).payouts]

    async def formed(
        self, user: Depositor, amount_sat: int, *, to: str | None = None, unlinked: bool = False
    ) -> PayoutId:
        """One withdrawal in a payout of its own, which is planned."""
        asked = await self.opened(user, amount_sat, to=to, unlinked=unlinked)
        (made,) = await self.form()
        assert [each.id for each in (await self.story(made)).members] == [asked]
        return made

    async def step(self, of: PayoutId, *, times: int = 1) -> None:
        for _ in range(times):
            await self.advanced(of)

    async def advanced(self, of: PayoutId) -> PayoutState:
        """One step, and what its workflow is told."""
        ref = PayoutRef(payout_id=of, workflow_id=workflow_ids.payout(of))
        return await self._run(self._payouts.advance_payout, ref)

    async def sent(self, user: Depositor, amount_sat: int, *, to: str | None = None) -> tuple[PayoutId, Txid]:
        """In the mempool, and not booked."""
        made = await self.formed(user, amount_sat, to=to)
        await self.step(made, times=3)
        return made, await self.txid(made)

    async def booked(self, user: Depositor, amount_sat: int, *, to: str | None = None) -> tuple[PayoutId, Txid]:
        made, txid = await self.sent(user, amount_sat, to=to)
        await self.step(made)
        assert (await self.story(made)).payout.booked_ref is not None
        return made, txid

    async def pay_more(self, of: PayoutId, rate_sat_kvb: int) -> None:
        """An operator has asked for this rate, and the payout has looked for coins."""
        await self.wants(of, rate_sat_kvb)
        await self.step(of)

    async def bumped(self, of: PayoutId, rate_sat_kvb: int) -> Txid:
        """Another version is in the mempool, and its fee is not booked."""
        await self.pay_more(of, rate_sat_kvb)
        await self.step(of, times=3)  # draft, sign, send
        return await self.txid(of)

    async def mine(self, blocks: int = 1) -> None:
        """And the books have seen it."""
        self.bank.chain.mine(blocks)
        await self.bank.follow()

    async def held(self, of: PayoutId, *, on_hold: bool = True) -> None:
        """As an operator's decision writes it."""
        async with transaction(self.bank.pool) as conn:
            await payout.set_hold_in_tx(conn, of, on_hold=on_hold)

    async def wants(self, of: PayoutId, rate_sat_kvb: int) -> None:
        """An operator's bump is decided, and nothing is done yet."""
        async with transaction(self.bank.pool) as conn:
            await payout.set_bump_in_tx(conn, of, rate_sat_kvb)

    async def state(self, of: PayoutId) -> PayoutState:
        """What its workflow and operators see."""
        return await read_state(self.bank.pool, await self.story(of))

    async def child(self, of: PayoutId, rate_sat_kvb: int) -> PayoutId:
        """A payout that spends the change of this one; planned."""
        story = await self.story(of)
        entry = await self.spending.mempool_entry(await self.txid(of))
        async with transaction(self.bank.pool) as conn:
            pulled = Pulled(story=story, entry=entry, address_type=self.change_type)
            return PayoutId((await plan_in_tx(conn, pulled, rate_sat_kvb)).payout_id)

    async def consolidation(self, coins: Sequence[tuple[Outpoint, int]], fee_sat: int) -> PayoutId:
        """These coins become one; planned."""
        made = PayoutId(new_id("payout"))
        new = payout.NewPayout(
            id=made,
            wallet=WALLET,
            kind=PayoutKind.CONSOLIDATION,
            speed=Speed.SLOW,
            workflow_id=workflow_ids.payout(made),
            estimate={},
        )
        planned = version.NewVersion(
            payout_id=made,
            number=1,
            kind=VersionKind.FIRST,
            rate_sat_kvb=3_000,
            fee_sat=Sat(fee_sat),
            weight=_WEIGHT,
            change_sat=Sat(sum(amount for _, amount in coins) - fee_sat),
            change_vout=0,
            inputs=[version.Input(outpoint=each, amount_sat=Sat(amount)) for each, amount in coins],
        )
        async with transaction(self.bank.pool) as conn:
            await payout.add_in_tx(conn, new)
            await version.add_in_tx(conn, planned)
            await coin.reserve_in_tx(conn, made, [each for each, _ in coins])
        return made

    async def story(self, of: PayoutId) -> Story:
        return await read_story(self.bank.pool, of)

    async def txid(self, of: PayoutId) -> Txid:
        """Of the current version."""
        txid = (await self.story(of)).current.txid
        assert txid is not None
        return txid

    async def takes(self, of: PayoutId, number: int = -1) -> int:
        """What a version takes from the wallet: outputs and fee."""
        story = await self.story(of)
        return sum(each.paid_sat for each in story.members) + story.versions[number].fee_sat
