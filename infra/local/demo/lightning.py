"""The demo over Lightning: payments between users, to nodes that are not ours and from them, and what goes wrong.

The outside world is a node that is not ours. What a user does goes over the public API.
"""

import asyncio
import secrets

from infra.local.demo.parts import Json, Step, User, expect, hold, sat, until
from infra.local.outside import Outside, outside
from infra.local.stack import Stack

_FUNDS_MSAT = 100_000_000


async def tell_lightning(step: Step, stack: Stack, alice: User, bob: User) -> None:
    """Receives, payments of every kind, a failed one, a repeat, and a worker that is killed."""
    async with outside(stack, "outside-2") as shop:
        await _fund(step, alice, shop)
        await _pay_inside(step, alice, bob)
        await _pay_outside(step, alice, shop)
        await _keep_quote(step, alice, shop)
        await _pay_address(step, bob, shop)
        await _withdraw_link(step, alice, shop)
        await _fail(step, alice, shop)
        await _repeat(step, alice, bob)
        await _kill_worker(step, stack, alice, shop)


async def _fund(step: Step, alice: User, shop: Outside) -> None:
    with step("an outside node pays alice's invoice") as line:
        invoice = await alice.invoice(_FUNDS_MSAT, "first deposit")
        await shop.pay(invoice["bolt11"])
        settled = await until(lambda: _settled(alice, f"/v1/invoices/{invoice['id']}"), "the receipt")
        hold(settled["received_msat"] == _FUNDS_MSAT, "credited what was paid")
        line.moved, line.stands = sat(_FUNDS_MSAT), "settled: credited once, by its payment hash"


async def _pay_inside(step: Step, alice: User, bob: User) -> None:
    with step(f"alice pays @{bob.name}") as line:
        paid = expect(await alice.pay(f"@{bob.name}", amount_msat=20_000_000, memo="lunch"), 201)
        hold((paid["status"], paid["fee_msat"]) == ("settled", 0), "settled without a fee")
        line.moved, line.stands = sat(20_000_000), "settled in the ledger; no node was asked"
    with step("alice pays an invoice of bob's") as line:
        invoice = await bob.invoice(5_000_000, "shoes")
        paid = expect(await alice.pay(invoice["bolt11"]), 201)
        hold((paid["kind"], paid["status"]) == ("internal", "settled"), "recognised as ours")
        line.moved, line.stands = sat(5_000_000), "settled in the ledger; the node's invoice is cancelled"


async def _pay_outside(step: Step, alice: User, shop: Outside) -> None:
    with step("alice pays an outside invoice over Lightning") as line:
        before = await alice.wallet()
        paid = expect(await alice.pay(await shop.invoice(30_000_000), max_fee_msat=100_000), 201)
        spent = 30_000_000 + paid["fee_msat"]
        hold(paid["status"] == "settled" and 0 < paid["fee_msat"] <= 100_000, "settled within the fee cap")
        hold((await alice.wallet())["available_msat"] == before["available_msat"] - spent, "the rest came back")
        line.moved = f"{sat(30_000_000)} + {sat(paid['fee_msat'])} fee"
        line.stands = f"settled; of {sat(100_000)} held for fees the rest came back"


async def _keep_quote(step: Step, alice: User, shop: Outside) -> None:
    with step("alice asks what a payment would cost, and pays it") as line:
        asked = {"wallet_id": alice.wallet_id, "destination": await shop.invoice(6_000_000)}
        quote = expect(await alice.call("POST", "/v1/payments/quote", asked), 200)
        hold(quote["fee_source"] == "probe", f"the way was tried, not known by {quote['fee_source']}")
        paid = expect(await alice.pay(asked["destination"], max_fee_msat=quote["max_fee_msat"]), 201)
        hold(paid["status"] == "settled" and paid["fee_msat"] <= quote["fee_msat"], "it cost no more than was said")
        line.moved = f"{sat(6_000_000)} + {sat(paid['fee_msat'])} fee"
        line.stands = f"settled; quoted by a probe: {sat(quote['fee_msat'])}"


async def _pay_address(step: Step, bob: User, shop: Outside) -> None:
    with step("an outside wallet pays bob's lightning address") as line:
        offer = expect(await bob.call("GET", f"/.well-known/lnurlp/{bob.name}"), 200)
        query = {"amount": "4000000", "comment": "for the music"}
        asked = expect(await bob.http.get(offer["callback"], params=query), 200)
        await shop.pay(asked["pr"])
        await until(lambda: _verified(bob, asked["verify"]), "the address to say that it was paid")
        line.moved, line.stands = sat(4_000_000), "settled; the payer can verify it (LUD-21)"


async def _withdraw_link(step: Step, alice: User, shop: Outside) -> None:
    with step("ten wallets claim a withdraw link of alice's, good for one, at once") as line:
        body = {"wallet_id": alice.wallet_id, "amount_msat": 2_000_000, "memo": "a gift"}
        link = expect(await alice.call("POST", "/v1/withdraw-links", body), 201)
        gifts = [expect(await alice.http.get(link["url"]), 200) for _ in range(10)]
        claims = [{"k1": gift["k1"], "pr": await shop.invoice(2_000_000)} for gift in gifts]
        answers = await asyncio.gather(*(alice.http.get(gifts[0]["callback"], params=claim) for claim in claims))
        paid = sum(expect(answer, 200)["status"] == "OK" for answer in answers)
        hold(paid == 1, f"paid once, not {paid} times")
        (payment,) = expect(await alice.call("GET", "/v1/payments?limit=1"), 200)["items"]
        await until(lambda: _settled(alice, f"/v1/payments/{payment['id']}"), "the claim to be settled")
        line.moved, line.stands = f"{sat(2_000_000)}, once", "one was paid; nine were told that it is used"


async def _fail(step: Step, alice: User, shop: Outside) -> None:
    with step("alice pays an invoice that its payee has cancelled") as line:
        before = await alice.wallet()
        held = await shop.hold_invoice(10_000_000)
        await shop.cancel(held.payment_hash)
        failed = expect(await alice.pay(held.bolt11), 201)
        hold(failed["status"] == "failed", "failed")
        hold((await alice.wallet())["available_msat"] == before["available_msat"], "everything came back")
        line.moved, line.stands = "0 sat", f"failed ({failed['failure']['code']}); all of it came back"


async def _repeat(step: Step, alice: User, bob: User) -> None:
    with step("the same request twice, as after a lost answer") as line:
        key = secrets.token_hex(8)
        first = await alice.pay(f"@{bob.name}", key=key, amount_msat=1_000_000)
        again = await alice.pay(f"@{bob.name}", key=key, amount_msat=1_000_000)
        hold(again.headers.get("Idempotency-Replayed") == "true", "the second is marked as a repeat")
        hold(expect(first, 201) == expect(again, 201), "both answers are the same")
        line.moved, line.stands = f"{sat(1_000_000)}, once", "settled; the repeat got the first answer"


async def _kill_worker(step: Step, stack: Stack, alice: User, shop: Outside) -> None:
    with step("kill -9 the worker while a payment is in flight") as line:
        held = await shop.hold_invoice(7_000_000)
        pending = expect(await alice.pay(held.bolt11, wait_s=0), 202)
        await until(lambda: _accepted(shop, held.payment_hash), "the HTLC to reach the payee")
        await asyncio.to_thread(stack.kill, "worker", wait=False)
        await shop.settle(held)
        path = f"/v1/payments/{pending['id']}"
        paid = await until(lambda: _settled(alice, path), "the payment to end")
        hold(paid["preimage"] == held.preimage.hex(), "settled with the payee's proof")
        line.moved, line.stands = (
            f"{sat(7_000_000)} + {sat(paid['fee_msat'])} fee",
            "settled by the next worker, once",
        )


async def _settled(user: User, path: str) -> Json | None:
    found = expect(await user.call("GET", path), 200)
    return found if found["status"] == "settled" else None


async def _verified(user: User, url: str) -> Json | None:
    found = expect(await user.http.get(url), 200)
    return found if found["settled"] else None


async def _accepted(shop: Outside, payment_hash: bytes) -> bool | None:
    invoice = await shop.look_up(payment_hash)
    return True if invoice.state == invoice.ACCEPTED else None
