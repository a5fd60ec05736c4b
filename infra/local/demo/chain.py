"""The demo's part on chain: a deposit, a reorganisation that takes it back, and one that brings it again.

Dora receives on chain. The miner of the regtest chain plays the world outside: it pays her and builds competing chains.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from infra.local.chain.payer import Sent
from infra.local.chain.regtest import Regtest
from infra.local.demo.parts import DoesNotHold, Json, Step, User, expect, hold, opened, sat, until
from infra.local.stack import Stack

_DEPOSIT_SAT = 50_000
_GIFT_MSAT = 3_000_000
_SPENT_MSAT = 20_000_000
_OWED_MSAT = _SPENT_MSAT - _GIFT_MSAT


@dataclass
class _Chapter:
    """Who takes part, and what the steps hand on."""

    chain: Regtest
    dora: User
    support: User
    address: str = ""
    block: str = ""
    """The one that confirmed the deposit."""
    _sent: Sent | None = None

    @property
    def sent(self) -> Sent:
        """The payer's transaction. Raises DoesNotHold before there is one."""
        if self._sent is None:
            raise DoesNotHold("nobody has paid dora")
        return self._sent

    async def receive(self) -> None:
        """Somebody pays the address."""
        self._sent = await asyncio.to_thread(self.chain.pay, self.address, _DEPOSIT_SAT)

    async def reaches(self, status: str) -> Json:
        """Dora's one deposit, once it has this status."""

        async def there() -> Json | None:
            found = expect(await self.dora.call("GET", "/v1/deposits"), 200)["items"]
            return dict(found[0]) if [each["status"] for each in found] == [status] else None

        return await until(there, f"the deposit to be {status}")


async def tell_chain(step: Step, stack: Stack, told: Mapping[str, str], alice: User, bob: User) -> tuple[str, Json]:
    """A deposit, seen, credited, taken back, and credited again. Returns dora's name and her wallet at the end."""
    async with AsyncExitStack() as open_ones:
        dora = await open_ones.enter_async_context(opened(told, "dora"))
        support = await open_ones.enter_async_context(opened(told, "sue", "support"))
        chapter = _Chapter(stack.chain(), dora, support)
        await _receive(step, chapter)
        await _confirm(step, chapter)
        await _pay_inside(step, chapter, bob)
        await _reorganise(step, chapter, alice)
        await _come_back(step, chapter)
        await _look(step, chapter)
        return dora.name, await dora.wallet()


async def _receive(step: Step, chapter: _Chapter) -> None:
    with step("dora asks for an address, and somebody pays it on chain") as line:
        made = expect(await chapter.dora.call("POST", "/v1/addresses", {"wallet_id": chapter.dora.wallet_id}), 201)
        chapter.address = made["address"]
        hold(made["bip21"].lower().startswith(f"bitcoin:{chapter.address}"), "a payment URI")
        await chapter.receive()
        found = await chapter.reaches("pending")
        hold((found["confirmations"], found["amount_sat"]) == (0, _DEPOSIT_SAT), "seen in the mempool")
        await until(lambda: _incoming(chapter.dora), "the amount to be incoming")
        hold((await chapter.dora.wallet())["available_msat"] == 0, "incoming, and not yet hers to spend")
        line.moved, line.stands = sat(_DEPOSIT_SAT * 1_000), f"pending: incoming; {_short(made['bip21'])}"


async def _confirm(step: Step, chapter: _Chapter) -> None:
    with step("a block confirms it") as line:
        (chapter.block,) = await asyncio.to_thread(chapter.chain.mine)
        mined_at = asyncio.get_running_loop().time()
        found = await chapter.reaches("credited")
        took_s = asyncio.get_running_loop().time() - mined_at
        hold((await chapter.dora.wallet())["available_msat"] == _DEPOSIT_SAT * 1_000, "credited in full")
        line.moved = sat(_DEPOSIT_SAT * 1_000)
        line.stands = f"credited with {found['confirmations']} confirmation, {took_s:.1f} s after its block"


async def _pay_inside(step: Step, chapter: _Chapter, payer: User) -> None:
    with step("bob pays the same address") as line:
        before = await asyncio.to_thread(chapter.chain.mempool)
        paid = expect(await payer.pay(f"bitcoin:{chapter.address}", amount_msat=_GIFT_MSAT), 201)
        hold((paid["kind"], paid["status"], paid["fee_msat"]) == ("internal", "settled", 0), "recognised as ours")
        hold(await asyncio.to_thread(chapter.chain.mempool) == before, "no transaction was made")
        line.moved, line.stands = sat(_GIFT_MSAT), "settled in the ledger; no transaction was made"


async def _reorganise(step: Step, chapter: _Chapter, payee: User) -> None:
    with step(f"dora spends {sat(_SPENT_MSAT)}, then a reorganisation takes the deposit back") as line:
        expect(await chapter.dora.pay(f"@{payee.name}", amount_msat=_SPENT_MSAT), 201)
        elsewhere = await asyncio.to_thread(chapter.chain.double_spend, chapter.sent)
        await asyncio.to_thread(chapter.chain.reorg, 1, with_=[elsewhere])
        found = await chapter.reaches("reversed")
        hold(found["receivable_msat"] == _OWED_MSAT, "what she cannot give back is a receivable")
        hold((await chapter.dora.wallet())["available_msat"] == 0, "all that she had is taken back")
        refused = expect(await chapter.dora.pay(f"@{payee.name}", amount_msat=1_000), 409)
        hold(refused["code"] == "account_locked", f"account_locked, not {refused['code']}")
        line.moved = f"−{sat(_DEPOSIT_SAT * 1_000)}"
        line.stands = f"reversed; {sat(_OWED_MSAT)} are owed, and the account is locked"


async def _come_back(step: Step, chapter: _Chapter) -> None:
    with step("another one brings it again; sue, an operator, unlocks the account") as line:
        await asyncio.to_thread(chapter.chain.come_back, chapter.block)
        found = await chapter.reaches("credited")
        hold(found["receivable_msat"] is None, "the same deposit, and nothing is owed")
        wallet, left_msat = await chapter.dora.wallet(), _DEPOSIT_SAT * 1_000 - _OWED_MSAT
        hold(wallet["available_msat"] == left_msat, f"credited once again, less what was owed: {wallet}")
        account = expect(await chapter.dora.call("GET", "/v1/account"), 200)
        change = {"status": "active", "note": "the deposit is back"}
        expect(await chapter.support.call("PATCH", f"/v1/admin/accounts/{account['id']}", change), 200)
        line.moved, line.stands = sat(_DEPOSIT_SAT * 1_000), "credited once again, and the receivable is repaid first"


async def _look(step: Step, chapter: _Chapter) -> None:
    with step("sue looks at the chain") as line:
        tip = await asyncio.to_thread(chapter.chain.tip)
        shown = await until(lambda: _followed(chapter.support, tip), "the bank to be at the tip")
        (hot,) = shown["wallets"]
        hold(hot["problem"] is None and hot["lag_blocks"] == 0, f"followed without a problem: {hot}")
        line.stands = (
            f"height {hot['tip']['height']:,}, nothing behind; {shown['pool']['ready']:,} addresses ready; "
            f"{shown['receivables']['count']} receivables"
        )


async def _incoming(user: User) -> Json | None:
    wallet = await user.wallet()
    return wallet if wallet["incoming_msat"] == _DEPOSIT_SAT * 1_000 else None


async def _followed(support: User, tip: str) -> Json | None:
    shown = expect(await support.call("GET", "/v1/admin/chain"), 200)
    return shown if shown["wallets"][0]["tip"]["hash"] == tip else None


def _short(uri: str) -> str:
    return f"{uri[:16]}…{uri[-6:]}"
