"""The demo's second half: what operators do, and what the books say of it, all over the public API.

Fees and limits are set for these steps only; after each step the earlier ones are put in force again.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from infra.local.demo.parts import Json, Step, User, expect, hold, opened, sat, until

_LEVEL = 9
"""The level of the account that is limited, so that no other user of the stack is."""
_AMOUNT_MSAT = 4_000_000
_FEES = {"internal": [{"flat_msat": 1_000}, {"proportional_ppm": 2_500}]}
_FEE_MSAT = 11_000
_LIMIT_SAT = 1_000
_CAP_SAT = 100


async def tell_books(step: Step, told: Mapping[str, str], alice: User, bob: User) -> Json | None:
    """Fees, limits, a correction, a statement, a reconciliation. Returns alice's statement, if there was one."""
    since = datetime.now(UTC)
    async with AsyncExitStack() as open_ones:
        ann, ben = [await open_ones.enter_async_context(opened(told, name, "finance")) for name in ("ann", "ben")]
        carol = await open_ones.enter_async_context(opened(told, "carol", level=_LEVEL))
        await _charge(step, ann, alice, bob)
        await _limit(step, ann, alice, carol, bob)
        await _cap(step, carol, alice)
        await _correct(step, ann, ben, alice)
        statement = await _state(step, alice, since)
        await _reconcile(step, ben)
    return statement


async def _charge(step: Step, finance: User, payer: User, payee: User) -> None:
    with step("finance sets a fee; alice asks what a payment costs, and pays it") as line:
        to = f"@{payee.name}"
        lunch = {"wallet_id": payer.wallet_id, "destination": to, "amount_msat": _AMOUNT_MSAT}
        async with in_force(finance, "fees", _FEES):
            quote = expect(await payer.call("POST", "/v1/payments/quote", lunch), 200)
            paid = expect(await payer.pay(to, amount_msat=_AMOUNT_MSAT, max_fee_msat=quote["max_fee_msat"]), 201)
        hold((quote["fee_source"], quote["fee_msat"]) == ("exact", _FEE_MSAT), "quoted: 1 sat and 0.25 %")
        hold((paid["status"], paid["fee_msat"]) == ("settled", _FEE_MSAT), "charged what was quoted")
        line.moved, line.stands = f"{sat(_AMOUNT_MSAT)} + {sat(_FEE_MSAT)} fee", "settled for exactly what was quoted"


async def _limit(step: Step, finance: User, alice: User, payer: User, payee: User) -> None:
    with step(f"finance limits level {_LEVEL} to {_LIMIT_SAT:,} sat a day; carol pays that, and one more") as line:
        expect(await alice.pay(f"@{payer.name}", amount_msat=3 * _LIMIT_SAT * 1_000), 201)
        levels = expect(await finance.call("GET", "/v1/admin/limits"), 200)["content"]["levels"]
        limits = {"levels": {**levels, str(_LEVEL): {"internal": {"day_sat": _LIMIT_SAT}}}}
        async with in_force(finance, "limits", limits):
            await _pay_to_the_last(payer, payee, _LIMIT_SAT, "limit_exceeded")
            (shown,) = expect(await payer.call("GET", "/v1/limits"), 200)["items"]
        hold((shown["used_msat"], shown["remaining_msat"]) == (_LIMIT_SAT * 1_000, 0), "GET /v1/limits says so")
        line.moved, line.stands = sat(_LIMIT_SAT * 1_000), "exactly the limit passed; 1 sat more: limit_exceeded"


async def _cap(step: Step, payer: User, payee: User) -> None:
    with step(f"carol makes a key that may spend {_CAP_SAT} sat a day, and somebody steals it") as line:
        account = expect(await payer.call("GET", "/v1/account"), 200)
        body = {"name": "pocket", "scopes": ["send"], "spend_limit_sat": {"day": _CAP_SAT}}
        key = expect(await payer.call("POST", f"/v1/accounts/{account['id']}/api-keys", body), 201)["key"]
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=payer.http.base_url, timeout=75, headers=headers) as http:
            await _pay_to_the_last(User(payer.name, payer.wallet_id, http), payee, _CAP_SAT, "spend_limit_exceeded")
        line.moved, line.stands = sat(_CAP_SAT * 1_000), "the cap passed; 1 sat more: spend_limit_exceeded"


async def _correct(step: Step, ann: User, ben: User, payee: User) -> None:
    with step("ann gives alice the fee back, and ben agrees") as line:
        proposal = {
            "kind": "correction",
            "debit": "income:transfer-fee",
            "credit": f"liab:user:{payee.wallet_id}",
            "amount_msat": _FEE_MSAT,
            "reason": "a fee that was ours to pay",
        }
        key = secrets.token_hex(8)
        proposed = expect(await ann.call("POST", "/v1/admin/corrections", proposal, Idempotency_Key=key), 201)
        place = f"/v1/admin/corrections/{proposed['id']}/approve"
        own = expect(await ann.call("POST", place, {}), 403)
        hold(own["code"] == "own_proposal", "ann alone moves nothing")
        posted = expect(await ben.call("POST", place, {"note": "seen"}), 200)
        hold((posted["status"], len(posted["transfers"])) == ("posted", 2), "posted through suspense")
        line.moved, line.stands = sat(_FEE_MSAT), "posted through suspense; ann's own approval: own_proposal"


async def _state(step: Step, alice: User, since: datetime) -> Json | None:
    statement: Json | None = None
    with step("alice's statement since the fee was set") as line:
        place = httpx.URL(f"/v1/wallets/{alice.wallet_id}/statement", params={"from": since.isoformat()})
        statement = expect(await alice.call("GET", str(place)), 200)
        moved = sum(movement["amount_msat"] for movement in statement["movements"])
        hold(statement["opening_msat"] + moved == statement["closing_msat"], "opening + movements = closing")
        hold(statement["closing_msat"] == (await alice.wallet())["balance_msat"], "it closes with the balance")
        line.stands = f"opening + {len(statement['movements'])} movements = closing, to the millisatoshi"
    return statement


async def _reconcile(step: Step, operator: User) -> None:
    with step("ben asks for a reconciliation with every node and the hot wallet") as line:
        started = expect(await operator.call("POST", "/v1/admin/reconciliation"), 202)
        run = await until(lambda: _finished(operator, started["id"]), "the run to end")
        differences = [account["difference_msat"] for account in run["accounts"]]
        hold(run["status"] == "clean" and set(differences) == {0}, f"{run['status']}: {run['findings']}")
        line.stands = f"clean: {len(differences)} accounts, difference 0 msat"


async def _pay_to_the_last(payer: User, payee: User, most_sat: int, code: str) -> None:
    """Exactly the maximum passes. One satoshi more is refused with this code, and so is the repeat."""
    expect(await payer.pay(f"@{payee.name}", amount_msat=most_sat * 1_000), 201)
    key = secrets.token_hex(8)
    refused = expect(await payer.pay(f"@{payee.name}", key=key, amount_msat=1_000), 409)
    hold(refused["code"] == code, f"{code}, not {refused['code']}")
    hold(expect(await payer.pay(f"@{payee.name}", key=key, amount_msat=1_000), 409) == refused, "the same no again")


async def _finished(operator: User, run_id: str) -> Json | None:
    answer = await operator.call("GET", f"/v1/admin/reconciliation/runs/{run_id}")
    if answer.status_code == httpx.codes.NOT_FOUND:  # no worker has begun it yet
        return None
    run = expect(answer, 200)
    return None if run["status"] == "running" else run


@asynccontextmanager
async def in_force(finance: User, book: str, content: Mapping[str, Any]) -> AsyncIterator[None]:
    """Set the fees or the limits for the block, and restore them after it, each time as the next version."""
    before = expect(await finance.call("GET", f"/v1/admin/{book}"), 200)
    place, version = f"/v1/admin/{book}", before["version"]
    changed = {"content": content, "version": version + 1, "note": "the demo"}
    expect(await finance.call("PUT", place, changed), 200)
    try:
        yield
    finally:
        restored = {"content": before["content"], "version": version + 2, "note": "the demo is over"}
        expect(await finance.call("PUT", place, restored), 200)
