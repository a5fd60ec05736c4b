"""Records the histories of withdrawals, batchers and payouts: `python -m tests.replay.withdrawals`.

It lives through their stories on a stack of its own, in a folder that is thrown away, and takes a minute. Everything is
asked for over the API, as apps and operators do. A story that has a file already is left alone, as in `record`.
Histories that go on in a new run come from `record`, on a stack whose Temporal suggests that early
(`limit.historyCount.suggestContinueAsNew` in `infra/local/services.py`).
"""

import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from infra.local.bitcoin_rpc import HOT
from infra.local.chain.regtest import Regtest
from infra.local.demo.parts import Json, User, expect, opened, until
from infra.local.stack import Stack
from tests.replay.record import HISTORIES, connect, write_history

_COINS_SAT = (900_000, 900_000, 900_000, 900_000, 900_000, 900_000)
_LARGE_SAT = 400_000
_DEEP = 3
_CHILD_RATE = 30_000


@dataclass
class Life:
    """The users and operators of the stories, and the chain."""

    chain: Regtest
    alice: User
    bob: User
    finance: User
    recorded: list[tuple[str, str]]
    """Stories and the workflows that have lived through them."""

    def tells(self, story: str, of: Json) -> None:
        """The workflow of this withdrawal, payout or batcher is the story's."""
        self.recorded.append((story, str(of["workflow_id"])))

    async def asked(self, amount_sat: int, **more: Any) -> Json:
        """A withdrawal of alice's to somebody outside, unless an address is given."""
        address = await asyncio.to_thread(self.chain.address, self.chain.payer)
        body = {"wallet_id": self.alice.wallet_id, "address": address, "amount_sat": amount_sat, "speed": "fast"}
        answer = await self.alice.call(
            "POST", "/v1/withdrawals", {**body, **more}, Idempotency_Key=secrets.token_hex(8), Prefer="wait=0"
        )
        return expect(answer, 202)

    async def cancels(self, withdrawal: Json) -> None:
        """By its owner."""
        expect(await self.alice.call("DELETE", f"/v1/withdrawals/{withdrawal['id']}"), 200)

    async def reaches(self, withdrawal: Json, status: str) -> Json:
        """The withdrawal, once it has this status."""

        async def look() -> Json | None:
            found = expect(await self.alice.call("GET", f"/v1/withdrawals/{withdrawal['id']}"), 200)
            return found if found["status"] == status else None

        return await until(look, f"{withdrawal['id']} to be {status}")

    async def payout(self, of: Json, **facts: Any) -> Json:
        """The payout of a withdrawal, or one that is given, once its story has these values."""

        async def look() -> Json | None:
            found = expect(await self.finance.call("GET", f"/v1/admin/payouts/{of.get('batch_id') or of['id']}"), 200)
            return found if all(found[name] == value for name, value in facts.items()) else None

        return await until(look, f"the payout with {facts}")

    async def decided(self, things: str, of: Json, kind: str, **more: Any) -> None:
        """One operator decides about a withdrawal or a payout."""
        body = {"kind": kind, "reason": "a story", **more}
        expect(await self.finance.call("POST", f"/v1/admin/{things}/{of['id']}/decisions", body), 201)

    async def flushed(self, speed: str) -> None:
        """What waits at this speed goes now."""
        expect(await self.finance.call("POST", f"/v1/admin/batchers/{speed}/flush", {"reason": "a story"}), 202)

    async def mined(self, blocks: int = 1) -> None:
        """So many blocks."""
        await asyncio.to_thread(self.chain.mine, blocks)

    async def ended(self, payout: Json) -> None:
        """Blocks until the payout lies deep."""
        await self.mined()
        await self.payout(payout, status="confirmed")
        await self.mined(_DEEP)
        await self.payout(payout, status="final")


async def unsent(life: Life) -> None:
    """Withdrawals that end without a transaction."""
    cancelled = await life.asked(30_000, speed="standard")
    await life.cancels(cancelled)
    life.tells("withdrawal-cancelled", cancelled)
    rejected = await life.asked(_LARGE_SAT)
    await life.decided("withdrawals", rejected, "reject")
    await life.reaches(rejected, "failed")
    life.tells("withdrawal-rejected", rejected)
    theirs = expect(await life.bob.call("POST", "/v1/addresses", {"wallet_id": life.bob.wallet_id}), 201)["address"]
    internal = await life.asked(20_000, address=theirs)
    await life.reaches(internal, "confirmed")
    life.tells("withdrawal-internal", internal)
    waits = await life.asked(20_000, speed="slow", unlinked=True, if_mixed="wait")
    await life.flushed("slow")
    await until(lambda: _waits(life, waits), "it to wait for unlinked coins")
    await life.cancels(waits)
    batchers = expect(await life.finance.call("GET", "/v1/admin/batchers"), 200)["items"]
    life.tells("batcher-lacks-coins", next(each for each in batchers if each["speed"] == "slow"))


async def batched(life: Life) -> None:
    """Members of one payout, which an operator bumps; one of them was on hold before."""
    held = await life.asked(30_000, speed="standard")
    await life.decided("withdrawals", held, "hold")
    await life.decided("withdrawals", held, "resume")
    plain = [await life.asked(30_000, speed="standard") for _ in range(2)]
    await life.flushed("standard")
    sent = await life.reaches(held, "broadcast")
    payout = await life.payout(sent, status="broadcast")
    await life.decided("payouts", payout, "hold")
    await life.decided("payouts", payout, "resume")
    await life.decided("payouts", payout, "bump", rate_sat_kvb=20_000)
    await life.payout(payout, version=2, fee_booked_sat=(await life.payout(payout, version=2))["fee_sat"])
    await life.ended(payout)
    life.tells("withdrawal-held", held)
    life.tells("withdrawal-confirmed", plain[0])
    life.tells("payout-bumped", payout)
    batchers = expect(await life.finance.call("GET", "/v1/admin/batchers"), 200)["items"]
    life.tells("batcher-flushed", next(each for each in batchers if each["speed"] == "standard"))


async def approved(life: Life) -> None:
    """A large one, whose payout is confirmed, taken back by a reorganisation, and confirmed again."""
    asked = await life.asked(_LARGE_SAT)
    await life.decided("withdrawals", asked, "approve")
    payout = await life.payout(await life.reaches(asked, "broadcast"), status="broadcast")
    await life.mined()
    await life.payout(payout, status="confirmed")
    await life.reaches(asked, "confirmed")
    await asyncio.to_thread(lambda: life.chain.reorg(1, without=[payout["txid"]]))
    await life.payout(payout, status="broadcast")
    await life.ended(payout)
    life.tells("withdrawal-approved", asked)
    life.tells("payout-reorganised", payout)


async def pulled(life: Life) -> None:
    """A payout whose change is spent by a child."""
    parent = await life.payout(
        await life.reaches(await life.asked(50_000, alone=True), "broadcast"), status="broadcast"
    )
    await life.decided("payouts", parent, "child", rate_sat_kvb=_CHILD_RATE)
    child = await until(lambda: _child(life, parent), "the child to be broadcast")
    await life.ended(child)
    await life.payout(parent, status="final")
    life.tells("payout-pulled", parent)
    life.tells("payout-child", child)


async def rebuilt(life: Life) -> None:
    """The coin of a payout is spent by hand, in a block: other coins pay, once that lies deep."""
    sent = await life.reaches(await life.asked(50_000, alone=True), "broadcast")
    payout = await life.payout(sent, status="broadcast")
    coins = payout["versions"][0]["inputs"]
    await asyncio.to_thread(lambda: life.chain.mine(txs=[_by_hand(life.chain, coins)]))
    await life.mined(_DEEP)
    again = await life.payout(payout, version=2, status="broadcast")
    await life.ended(again)
    life.tells("payout-rebuilt", payout)
    batchers = expect(await life.finance.call("GET", "/v1/admin/batchers"), 200)["items"]
    life.tells("batcher-running", next(each for each in batchers if each["speed"] == "fast"))


async def main() -> None:
    """Live through all stories, then write down those that have no file."""
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        stack = await asyncio.to_thread(Stack.start, Path(folder))
        try:
            await _record(stack)
        finally:
            await asyncio.to_thread(stack.stop)


async def _record(stack: Stack) -> None:
    told = stack.environment()
    async with _life(stack, told) as life:
        for chapter in (unsent, batched, approved, pulled, rebuilt):
            await chapter(life)
            sys.stdout.write(f"lived through: {chapter.__name__}\n")
    client = await connect(told)
    for story, workflow_id in life.recorded:
        path = HISTORIES / f"{story}.json"
        if not path.exists():
            sys.stdout.write(f"{story}: {await write_history(client, workflow_id, None, path)}\n")


@asynccontextmanager
async def _life(stack: Stack, told: Mapping[str, str]) -> AsyncIterator[Life]:
    async with AsyncExitStack() as open_ones:
        alice, bob = [await open_ones.enter_async_context(opened(told, name)) for name in ("alice", "bob")]
        finance = await open_ones.enter_async_context(opened(told, "fay", "finance"))
        life = Life(stack.chain(), alice, bob, finance, [])
        await _set_rules(finance)
        made = expect(await alice.call("POST", "/v1/addresses", {"wallet_id": alice.wallet_id}), 201)
        await asyncio.to_thread(life.chain.pay_many, [(made["address"], each) for each in _COINS_SAT])
        await life.mined()
        await until(lambda: _funded(alice), "the deposits to be credited")
        yield life


async def _set_rules(finance: User) -> None:
    """No window at speed `fast`, approval for large ones, and payouts that are soon deep."""
    place = "/v1/admin/withdrawals/rules"
    now = expect(await finance.call("GET", place), 200)
    content = now["content"] | {"approval_above_sat": _LARGE_SAT - 1, "deep": _DEEP}
    content["speeds"]["fast"]["window_s"] = 0
    expect(
        await finance.call("PUT", place, {"content": content, "version": now["version"] + 1, "note": "stories"}), 200
    )


async def _funded(user: User) -> bool | None:
    return (await user.wallet())["available_msat"] == sum(_COINS_SAT) * 1_000 or None


async def _waits(life: Life, withdrawal: Json) -> bool | None:
    found = expect(await life.alice.call("GET", f"/v1/withdrawals/{withdrawal['id']}"), 200)
    return found["waits_for"] != withdrawal["waits_for"] or None


async def _child(life: Life, parent: Json) -> Json | None:
    """Once it and its parent are in the mempool and booked."""
    children = (await life.payout(parent))["children"]
    if not children:
        return None
    child = await life.payout({"id": children[0]})
    return child if child["status"] == "broadcast" else None


def _by_hand(chain: Regtest, coins: list[Json]) -> str:
    """Somebody at the node sends these coins back to the wallet, for no fee. The transaction (hex), for a block."""
    to = chain.call("getrawchangeaddress", "bech32", wallet=HOT)
    spent = [{"txid": each["txid"], "vout": each["vout"]} for each in coins]
    total = Decimal(sum(each["amount_sat"] for each in coins)).scaleb(-8)
    raw = chain.call("createrawtransaction", spent, {to: str(total)})
    return str(chain.call("signrawtransactionwithwallet", raw, wallet=HOT)["hex"])


if __name__ == "__main__":
    asyncio.run(main())
