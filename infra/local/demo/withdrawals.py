"""The demo's way out on chain: twenty-one withdrawals asked for, one cancelled, one transaction, and a fee bump.

Erin's shop pays people outside, Grace empties her wallet, Tom and Fay are operators. The two deposits bring the coins.
What the chain has is asked of bitcoind itself: fees, versions, and what each address got.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from infra.local.chain.payer import satoshi
from infra.local.chain.regtest import Regtest
from infra.local.demo.books import in_force
from infra.local.demo.parts import Json, Step, User, expect, hold, opened, sat, until
from infra.local.stack import Stack

_MEMBERS = 20
_KINDS = ("bech32", "bech32m", "p2sh-segwit", "legacy")
_ERIN_SAT, _GRACE_SAT = 900_000, 200_000
_LEAST_SAT, _STEP_SAT = 20_000, 500
_TWO_ABOVE_SAT = 400_000
"""In force for the bump only: two people decide about a batch of this amount."""
_FEE_CAP_SAT = 10_000
"""Of each withdrawal: on a stack that lives long, bitcoind has estimates, and they move with each block."""
_BUMP_BY = 15_000
"""In sat per 1,000 virtual bytes."""


@dataclass
class Batch:
    """What became of the batch, for its table."""

    members: list[Json]
    kinds: Mapping[str, str]
    """Of each address."""
    fee_sat: int
    """Of the first version, as bitcoind says."""
    bumped_sat: int
    """Of the version that a block took."""


@dataclass
class _Chapter:
    """Who takes part, and what the steps hand on."""

    chain: Regtest
    erin: User
    grace: User
    tom: User
    fay: User
    kinds: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[Json] = field(default_factory=list[Json])
    story: Json = field(default_factory=dict[str, object])
    fees: list[int] = field(default_factory=list[int])

    def fee_sat(self, txid: str) -> int:
        """What a transaction in the mempool pays, by bitcoind."""
        return satoshi(self.chain.call("getmempoolentry", txid)["fees"]["base"])

    async def tell(self) -> Json:
        """The batch as operators see it now."""
        return expect(await self.tom.call("GET", f"/v1/admin/payouts/{self.story['id']}"), 200)


async def tell_withdrawals(
    step: Step, stack: Stack, told: Mapping[str, str]
) -> tuple[Batch | None, list[tuple[str, Json]]]:
    """The batch, if it came as far as its bump, and the names of erin and grace with their wallets at the end."""
    async with AsyncExitStack() as open_ones:
        erin, grace = [await open_ones.enter_async_context(opened(told, name)) for name in ("erin", "grace")]
        roles = {"tom": "treasury", "fay": "finance"}
        tom, fay = [await open_ones.enter_async_context(opened(told, *each)) for each in roles.items()]
        chapter = _Chapter(stack.chain(), erin, grace, tom, fay)
        await _fund(step, chapter)
        await _quote(step, chapter)
        await _ask(step, chapter)
        await _cancel(step, chapter)
        await _flush(step, chapter)
        await _bump(step, chapter)
        await _confirm(step, chapter)
        await _empty(step, chapter)
        batch = None
        if len(chapter.fees) > 1:
            batch = Batch(chapter.story["member_list"], chapter.kinds, chapter.fees[0], chapter.fees[-1])
        return batch, [(user.name, await user.wallet()) for user in (erin, grace)]


async def _fund(step: Step, chapter: _Chapter) -> None:
    with step("erin and grace receive on chain: the coins of the bank") as line:
        payments: dict[str, int] = {}
        for user, amount_sat in ((chapter.erin, _ERIN_SAT), (chapter.grace, _GRACE_SAT)):
            made = expect(await user.call("POST", "/v1/addresses", {"wallet_id": user.wallet_id}), 201)
            payments[made["address"]] = amount_sat
        for address, amount_sat in payments.items():
            await asyncio.to_thread(chapter.chain.pay, address, amount_sat)
        await asyncio.to_thread(chapter.chain.mine)
        await until(lambda: _has(chapter.erin, _ERIN_SAT), "erin's deposit to be credited")
        await until(lambda: _has(chapter.grace, _GRACE_SAT), "grace's deposit to be credited")
        line.moved, line.stands = sat((_ERIN_SAT + _GRACE_SAT) * 1_000), "credited with one confirmation"


async def _quote(step: Step, chapter: _Chapter) -> None:
    with step("erin asks what a withdrawal costs") as line:
        address = await asyncio.to_thread(chapter.chain.address, chapter.chain.payer)
        asked = {"wallet_id": chapter.erin.wallet_id, "address": address, "amount_sat": _LEAST_SAT}
        quote = expect(await chapter.erin.call("POST", "/v1/withdrawals/quote", asked), 200)
        hold(list(quote["speeds"]) == ["fast", "standard", "slow"], "three speeds")
        now = quote["speeds"]["standard"]
        hold(0 < now["fee_sat"] <= now["alone_fee_sat"] <= now["max_fee_sat"], f"the cap covers both: {now}")
        line.moved = f"alone {now['alone_fee_sat']:,} sat"
        rate = f"{now['rate_sat_kvb'] / 1_000:g} sat/vB ({now['rate_source']})"
        line.stands = f"the cap would be {now['max_fee_sat']:,} sat; {rate}"


async def _ask(step: Step, chapter: _Chapter) -> None:
    with step(f"her shop asks for {_MEMBERS + 1} withdrawals, to addresses of every kind, two to the same one") as line:
        addresses = [await asyncio.to_thread(_address, chapter.chain, _KINDS[n % 4]) for n in range(_MEMBERS)]
        chapter.kinds = {address: _KINDS[n % 4] for n, address in enumerate(addresses)}
        addresses.append(addresses[0])
        wanted = [
            {"address": address, "amount_sat": _LEAST_SAT + n * _STEP_SAT, "max_fee_sat": _FEE_CAP_SAT}
            for n, address in enumerate(addresses)
        ]
        chapter.asked = await asyncio.gather(*(_withdraw(chapter.erin, body) for body in wanted))
        hold({each["status"] for each in chapter.asked} == {"queued"}, "all of them wait")
        held_sat = sum(each["held_sat"] for each in chapter.asked)
        wallet = await chapter.erin.wallet()
        hold(wallet["held_msat"] == held_sat * 1_000, f"held: {wallet}")
        line.moved = f"{sat(held_sat * 1_000)} held"
        line.stands = "queued: amounts and fee caps are held, nothing has left"


async def _cancel(step: Step, chapter: _Chapter) -> None:
    with step("she cancels one of them") as line:
        second = chapter.asked.pop(1)
        before = await chapter.erin.wallet()
        gone = expect(await chapter.erin.call("DELETE", f"/v1/withdrawals/{second['id']}"), 200)
        again = expect(await chapter.erin.call("DELETE", f"/v1/withdrawals/{second['id']}"), 200)
        hold(gone["status"] == "cancelled" and again == gone, "cancelled, and the repeat says the same")
        free_msat = (await chapter.erin.wallet())["available_msat"] - before["available_msat"]
        hold(free_msat == second["held_sat"] * 1_000, "all of its hold is free")
        line.moved, line.stands = f"{sat(free_msat)} free", "cancelled: amount and fee cap are back"


async def _flush(step: Step, chapter: _Chapter) -> None:
    with step("tom, an operator, does not wait for the window") as line:
        body = {"reason": "the demo"}
        waiting = expect(await chapter.tom.call("POST", "/v1/admin/batchers/standard/flush", body), 202)["waiting"]
        hold(waiting == _MEMBERS, f"{waiting} waited")
        gone = await until(lambda: _all(chapter, "broadcast"), "the batch to be broadcast")
        (batch_id,) = {each["batch_id"] for each in gone}
        chapter.story = {"id": batch_id}
        chapter.story = await until(lambda: _booked(chapter), "the batch to be booked")
        chapter.fees.append(await asyncio.to_thread(chapter.fee_sat, chapter.story["txid"]))
        shares_sat = [each["miner_fee_sat"] for each in chapter.story["member_list"]]
        hold(len(shares_sat) == _MEMBERS and sum(shares_sat) == chapter.story["shares_sat"], "the shares add up")
        hold(chapter.fees[0] == chapter.story["fee_sat"] >= sum(shares_sat), f"bitcoind: {chapter.fees[0]} sat")
        refused = expect(await chapter.erin.call("DELETE", f"/v1/withdrawals/{gone[0]['id']}"), 409)
        hold(refused["code"] == "already_batched", f"already_batched, not {refused['code']}")
        line.moved = f"{sat(chapter.story['paid_sat'] * 1_000)} + {chapter.fees[0]:,} sat fee"
        line.stands = f"one transaction pays {_MEMBERS}; shares of {min(shares_sat):,} to {max(shares_sat):,} sat"


async def _bump(step: Step, chapter: _Chapter) -> None:
    with step("no block takes it: tom proposes a higher fee, and fay approves") as line:
        first, place = chapter.story["txid"], f"/v1/admin/payouts/{chapter.story['id']}/decisions"
        rate = chapter.story["rate_sat_kvb"] + _BUMP_BY
        wanted = {"kind": "bump", "rate_sat_kvb": rate, "reason": "no block has taken it"}
        rules = expect(await chapter.fay.call("GET", "/v1/admin/withdrawals/rules"), 200)["content"]
        stricter = rules | dict.fromkeys(("approval_above_sat", "second_operator_above_sat"), _TWO_ABOVE_SAT)
        async with in_force(chapter.fay, "withdrawals/rules", stricter):
            proposed = expect(await chapter.tom.call("POST", place, wanted), 201)
        hold((proposed["status"], proposed["operators"]) == ("proposed", 2), "two people decide about this amount")
        approve = f"/v1/admin/withdrawal-decisions/{proposed['id']}/approve"
        own = expect(await chapter.tom.call("POST", approve, {}), 403)
        hold(own["code"] == "own_proposal", f"own_proposal, not {own['code']}")
        expect(await chapter.fay.call("POST", approve, {"note": "seen"}), 200)
        chapter.story = await until(lambda: _replaced(chapter, first), "the next version to be broadcast")
        chapter.fees.append(await asyncio.to_thread(chapter.fee_sat, chapter.story["txid"]))
        mempool = await asyncio.to_thread(chapter.chain.mempool)
        hold(first not in mempool, "the first version has left the mempool")
        hold(chapter.fees[1] == chapter.story["fee_booked_sat"], "the books have the fee that bitcoind shows")
        line.moved = f"+{chapter.fees[1] - chapter.fees[0]:,} sat fee"
        line.stands = "version 2 replaces the first; the bank pays the difference, the shares stay"


async def _confirm(step: Step, chapter: _Chapter) -> None:
    with step("a block confirms it") as line:
        await asyncio.to_thread(chapter.chain.mine)
        paid = await until(lambda: _all(chapter, "confirmed"), "the batch to be confirmed")
        due = Counter[str]()
        for each in chapter.asked:
            due[each["address"]] += each["amount_sat"]
        got = await asyncio.to_thread(lambda: {address: _received(chapter.chain, address) for address in due})
        hold(got == due, "every address got its amount, once")
        shares = {each["withdrawal_id"]: each["miner_fee_sat"] for each in chapter.story["member_list"]}
        hold({each["id"]: each["miner_fee_sat"] for each in paid} == shares, "the bump has changed no share")
        spent_msat = (sum(due.values()) + sum(each["fee_sat"] for each in paid)) * 1_000
        wallet, before_msat = await chapter.erin.wallet(), _ERIN_SAT * 1_000
        hold((wallet["held_msat"], wallet["available_msat"]) == (0, before_msat - spent_msat), f"the rest: {wallet}")
        line.moved = sat(sum(due.values()) * 1_000)
        line.stands = f"confirmed: {len(due)} addresses have exactly what is due; what was held beyond is free"


async def _empty(step: Step, chapter: _Chapter) -> None:
    with step("grace withdraws all, alone, with coins that do not descend from her deposit") as line:
        body = {
            "address": await asyncio.to_thread(chapter.chain.address, chapter.chain.payer),
            "send_all": True,
            "alone": True,
            "unlinked": True,
            "max_fee_sat": _FEE_CAP_SAT,
        }
        asked = await _withdraw(chapter.grace, body)
        sent = await until(lambda: _reaches(chapter.grace, asked["id"], "broadcast"), "it to be broadcast")
        place = f"/v1/admin/payouts/{sent['batch_id']}"
        story = expect(await chapter.tom.call("GET", place), 200)
        account = expect(await chapter.grace.call("GET", "/v1/account"), 200)["id"]
        origins = {origin for each in story["versions"][0]["inputs"] for origin in each["origins"]}
        hold(account not in origins, "no coin descends from her")
        await asyncio.to_thread(chapter.chain.mine)
        done = await until(lambda: _reaches(chapter.grace, asked["id"], "confirmed"), "it to be confirmed")
        got_sat = await asyncio.to_thread(_received, chapter.chain, done["address"])
        hold(done["paid_sat"] + done["fee_sat"] == _GRACE_SAT and got_sat == done["paid_sat"], "paid and fee are all")
        wallet = await chapter.grace.wallet()
        hold((wallet["available_msat"], wallet["held_msat"]) == (0, 0), f"nothing is left: {wallet}")
        line.moved = f"{got_sat:,} sat + {done['fee_sat']:,} sat fee"
        line.stands = "confirmed: exactly 0 is left, and none of its coins was hers"


async def _withdraw(user: User, body: Json) -> Json:
    body = {"wallet_id": user.wallet_id, **body}
    answer = await user.call("POST", "/v1/withdrawals", body, Idempotency_Key=secrets.token_hex(8))
    return expect(answer, 202)


async def _has(user: User, amount_sat: int) -> bool | None:
    return (await user.wallet())["available_msat"] == amount_sat * 1_000 or None


async def _all(chapter: _Chapter, status: str) -> list[Json] | None:
    """Erin's withdrawals that were not cancelled, once all of them have this status."""
    found = expect(await chapter.erin.call("GET", "/v1/withdrawals?limit=100"), 200)["items"]
    ours = [each for each in found if each["status"] != "cancelled"]
    return ours if {each["status"] for each in ours} == {status} else None


async def _reaches(user: User, withdrawal_id: str, status: str) -> Json | None:
    found = expect(await user.call("GET", f"/v1/withdrawals/{withdrawal_id}"), 200)
    return found if found["status"] == status else None


async def _booked(chapter: _Chapter) -> Json | None:
    story = await chapter.tell()
    return story if story["fee_booked_sat"] else None


async def _replaced(chapter: _Chapter, first: str) -> Json | None:
    story = await chapter.tell()
    return story if story["txid"] != first and story["fee_booked_sat"] == story["fee_sat"] else None


def _address(chain: Regtest, kind: str) -> str:
    return str(chain.call("getnewaddress", "", kind, wallet=chain.payer))


def _received(chain: Regtest, address: str) -> int:
    return satoshi(chain.call("getreceivedbyaddress", address, 0, wallet=chain.payer))
