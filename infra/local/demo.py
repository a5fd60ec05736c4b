"""`./run demo`: the whole engine at work in a minute, and the proof that not one millisatoshi went astray.

What a user does goes over the public API; the outside world is two Lightning nodes that are not ours. Every step checks
what it shows: a line that does not hold makes the exit code 1. At a terminal the stack stays up afterwards, so that its
pages can be looked at; otherwise, or with Ctrl-C, it is stopped and its data kept.
"""

import asyncio
import secrets
import signal
import sys
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from infra.local.commands import ROOT
from infra.local.demo_books import statement_table, tell_books
from infra.local.demo_chain import tell_chain
from infra.local.demo_parts import Json, Story, User, expect, hold, opened, sat, until
from infra.local.home import Home
from infra.local.outside import Outside, outside
from infra.local.parts.store import Failed
from infra.local.proof import Proof, prove
from infra.local.stack import Stack

_FUNDS_MSAT = 100_000_000


@dataclass
class Demo:
    """The steps, in order."""

    stack: Stack
    story: Story

    async def run(self) -> bool:
        """The whole story; True when every line holds."""
        told = self.stack.environment()
        async with opened(told, "alice") as alice, opened(told, "bob") as bob, outside(self.stack, "outside-2") as shop:
            await self._fund(alice, shop)
            await self._pay_inside(alice, bob)
            await self._pay_outside(alice, shop)
            await self._keep_quote(alice, shop)
            await self._pay_address(bob, shop)
            await self._withdraw_link(alice, shop)
            await self._fail(alice, shop)
            await self._repeat(alice, bob)
            await self._kill_worker(alice, shop)
            depositor = await tell_chain(self.story.step, self.stack, told, alice, bob)
            statement = await tell_books(self.story.step, told, alice, bob)
            wallets = [*[(user.name, await user.wallet()) for user in (alice, bob)], depositor]
        proof = await self._prove()
        self._show(wallets, statement, proof)
        return proof.holds and all(line.holds for line in self.story.lines)

    async def _fund(self, alice: User, shop: Outside) -> None:
        with self.story.step("an outside node pays alice's invoice") as line:
            invoice = await alice.invoice(_FUNDS_MSAT, "first deposit")
            await shop.pay(invoice["bolt11"])
            settled = await until(lambda: _settled(alice, f"/v1/invoices/{invoice['id']}"), "the receipt")
            hold(settled["received_msat"] == _FUNDS_MSAT, "credited what was paid")
            line.moved, line.stands = sat(_FUNDS_MSAT), "settled: credited once, by its payment hash"

    async def _pay_inside(self, alice: User, bob: User) -> None:
        with self.story.step(f"alice pays @{bob.name}") as line:
            paid = expect(await alice.pay(f"@{bob.name}", amount_msat=20_000_000, memo="lunch"), 201)
            hold((paid["status"], paid["fee_msat"]) == ("settled", 0), "settled without a fee")
            line.moved, line.stands = sat(20_000_000), "settled in the ledger; no node was asked"
        with self.story.step("alice pays an invoice of bob's") as line:
            invoice = await bob.invoice(5_000_000, "shoes")
            paid = expect(await alice.pay(invoice["bolt11"]), 201)
            hold((paid["kind"], paid["status"]) == ("internal", "settled"), "recognised as ours")
            line.moved, line.stands = sat(5_000_000), "settled in the ledger; the node's invoice is cancelled"

    async def _pay_outside(self, alice: User, shop: Outside) -> None:
        with self.story.step("alice pays an outside invoice over Lightning") as line:
            before = await alice.wallet()
            paid = expect(await alice.pay(await shop.invoice(30_000_000), max_fee_msat=100_000), 201)
            spent = 30_000_000 + paid["fee_msat"]
            hold(paid["status"] == "settled" and 0 < paid["fee_msat"] <= 100_000, "settled within the fee cap")
            hold((await alice.wallet())["available_msat"] == before["available_msat"] - spent, "the rest came back")
            line.moved = f"{sat(30_000_000)} + {sat(paid['fee_msat'])} fee"
            line.stands = f"settled; of {sat(100_000)} held for fees the rest came back"

    async def _keep_quote(self, alice: User, shop: Outside) -> None:
        with self.story.step("alice asks what a payment would cost, and pays it") as line:
            asked = {"wallet_id": alice.wallet_id, "destination": await shop.invoice(6_000_000)}
            quote = expect(await alice.call("POST", "/v1/payments/quote", asked), 200)
            hold(quote["fee_source"] == "probe", f"the way was tried, not known by {quote['fee_source']}")
            paid = expect(await alice.pay(asked["destination"], max_fee_msat=quote["max_fee_msat"]), 201)
            hold(paid["status"] == "settled" and paid["fee_msat"] <= quote["fee_msat"], "it cost no more than was said")
            line.moved = f"{sat(6_000_000)} + {sat(paid['fee_msat'])} fee"
            line.stands = f"settled; quoted by a probe: {sat(quote['fee_msat'])}"

    async def _pay_address(self, bob: User, shop: Outside) -> None:
        with self.story.step("an outside wallet pays bob's lightning address") as line:
            offer = expect(await bob.call("GET", f"/.well-known/lnurlp/{bob.name}"), 200)
            query = {"amount": "4000000", "comment": "for the music"}
            asked = expect(await bob.http.get(offer["callback"], params=query), 200)
            await shop.pay(asked["pr"])
            await until(lambda: _verified(bob, asked["verify"]), "the address to say that it was paid")
            line.moved, line.stands = sat(4_000_000), "settled; the payer can verify it (LUD-21)"

    async def _withdraw_link(self, alice: User, shop: Outside) -> None:
        with self.story.step("ten wallets claim a withdraw link of alice's, good for one, at once") as line:
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

    async def _fail(self, alice: User, shop: Outside) -> None:
        with self.story.step("alice pays an invoice that its payee has cancelled") as line:
            before = await alice.wallet()
            held = await shop.hold_invoice(10_000_000)
            await shop.cancel(held.payment_hash)
            failed = expect(await alice.pay(held.bolt11), 201)
            hold(failed["status"] == "failed", "failed")
            hold((await alice.wallet())["available_msat"] == before["available_msat"], "everything came back")
            line.moved, line.stands = "0 sat", f"failed ({failed['failure']['code']}); all of it came back"

    async def _repeat(self, alice: User, bob: User) -> None:
        with self.story.step("the same request twice, as after a lost answer") as line:
            key = secrets.token_hex(8)
            first = await alice.pay(f"@{bob.name}", key=key, amount_msat=1_000_000)
            again = await alice.pay(f"@{bob.name}", key=key, amount_msat=1_000_000)
            hold(again.headers.get("Idempotency-Replayed") == "true", "the second is marked as a repeat")
            hold(expect(first, 201) == expect(again, 201), "both answers are the same")
            line.moved, line.stands = f"{sat(1_000_000)}, once", "settled; the repeat got the first answer"

    async def _kill_worker(self, alice: User, shop: Outside) -> None:
        with self.story.step("kill -9 the worker while a payment is in flight") as line:
            held = await shop.hold_invoice(7_000_000)
            pending = expect(await alice.pay(held.bolt11, wait_s=0), 202)
            await until(lambda: _accepted(shop, held.payment_hash), "the HTLC to reach the payee")
            await asyncio.to_thread(self.stack.kill, "worker", wait=False)
            await shop.settle(held)
            path = f"/v1/payments/{pending['id']}"
            paid = await until(lambda: _settled(alice, path), "the payment to end")
            hold(paid["preimage"] == held.preimage.hex(), "settled with the payee's proof")
            line.moved, line.stands = (
                f"{sat(7_000_000)} + {sat(paid['fee_msat'])} fee",
                "settled by the next worker, once",
            )

    async def _prove(self) -> Proof:
        with self.story.step("books against nodes and bitcoind") as line:
            proof = await prove(self.stack)
            hold(proof.holds, proof.complaint())
            line.moved, line.stands = "", "every rule of the books kept; every difference is 0 msat"
        return proof

    def _show(self, wallets: list[tuple[str, Json]], statement: Json | None, proof: Proof) -> None:
        story = Table("", "step", "what moved", "where it stands", "took", title="What happened")
        for line in self.story.lines:
            mark = "[green]✓[/]" if line.holds else "[red]✗[/]"
            story.add_row(mark, line.step, line.moved, line.stands, f"{line.took_s:.1f} s")
        people = Table("wallet", "available", "held", title="What the users have")
        for name, wallet in wallets:
            people.add_row(f"@{name}", sat(wallet["available_msat"]), sat(wallet["held_msat"]))
        books = Table("account", "books, msat", "node, msat", "books − node", title="The proof")
        for account in proof.accounts:
            difference = f"[{'red' if account.difference_msat else 'green'}]{account.difference_msat:,}[/]"
            books.add_row(account.account, f"{account.books_msat:,}", f"{account.node_msat:,}", difference)
        for column in (*people.columns[1:], *books.columns[1:], story.columns[4]):
            column.justify = "right"
        told = [statement_table(statement)] if statement else []
        self.story.console.print(story, *told, people, books)

    def show_links(self) -> None:
        """Where to look, and what to try next."""
        told = self.stack.environment()
        self.story.console.print(f"API docs      {told['MILLRACE_API_URL']}/docs", highlight=False)
        self.story.console.print(f"Temporal UI   {told['MILLRACE_TEMPORAL_UI_URL']}", highlight=False)
        self.story.console.print(
            f"Metrics       {told['MILLRACE_API_URL']}/metrics: millrace_reconciliation_status, _difference_msat, "
            "millrace_cases_open",
            highlight=False,
        )
        self.story.console.print('Try next      the tour in README.md, after: eval "$(./run env)"', highlight=False)


async def _settled(user: User, path: str) -> Json | None:
    found = expect(await user.call("GET", path), 200)
    return found if found["status"] == "settled" else None


async def _verified(user: User, url: str) -> Json | None:
    found = expect(await user.http.get(url), 200)
    return found if found["settled"] else None


async def _accepted(shop: Outside, payment_hash: bytes) -> bool | None:
    invoice = await shop.look_up(payment_hash)
    return True if invoice.state == invoice.ACCEPTED else None


async def main() -> int:
    """Run the demo on the stack that runs, or on one of its own."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    home = Home.current(ROOT)
    found = home.running() and home.read_state().ready
    with console.status("starting the stack (15 s; the very first time LND is built, which takes minutes)"):
        stack = Stack.running() if found else await asyncio.to_thread(Stack.start, home.folder)
    try:
        demo = Demo(stack, Story(console))
        holds = await demo.run()
        demo.show_links()
        if not found and sys.stdout.isatty():
            console.print("The stack stays up until you press Ctrl-C; its data is kept for ./run up.")
            await _until_told()
    finally:
        if not found:
            with console.status("stopping the stack"):
                await asyncio.to_thread(stack.stop)
    if not found and not sys.stdout.isatty():
        console.print("The stack is stopped and its data kept: ./run up goes on from here.")
    return 0 if holds else 1


async def _until_told() -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except Failed as failure:
        print(f"demo: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted; the stack is stopped and its data kept.", file=sys.stderr)
        sys.exit(130)
