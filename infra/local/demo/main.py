"""`./run demo`: the whole engine at work in a minute, and the proof that not one millisatoshi went astray.

What a user or an operator does goes over the public API; the outside world is two Lightning nodes that are not ours,
and a miner. Every step checks what it shows: a line that does not hold makes the exit code 1. At a terminal the stack
stays up afterwards, so that its pages can be looked at; otherwise, or with Ctrl-C, it is stopped and its data kept.
"""

import asyncio
import signal
import sys

from rich.console import Console

from infra.local.commands import ROOT
from infra.local.demo.books import tell_books
from infra.local.demo.chain import tell_chain
from infra.local.demo.lightning import tell_lightning
from infra.local.demo.parts import Story, hold, opened
from infra.local.demo.tables import show_links, show_tables
from infra.local.demo.withdrawals import tell_withdrawals
from infra.local.home import Home
from infra.local.parts.store import Failed
from infra.local.proof import Proof, prove
from infra.local.stack import Stack


async def tell(stack: Stack, story: Story) -> bool:
    """The whole story, in order; True when every line holds."""
    told = stack.environment()
    async with opened(told, "alice") as alice, opened(told, "bob") as bob:
        await tell_lightning(story.step, stack, alice, bob)
        dora = await tell_chain(story.step, stack, told, alice, bob)
        batch, grace = await tell_withdrawals(story.step, stack, told)
        statement = await tell_books(story.step, told, alice, bob)
        wallets = [*[(user.name, await user.wallet()) for user in (alice, bob)], dora, *grace]
    proof = await _prove(stack, story)
    show_tables(story, wallets, statement, batch, proof)
    return proof.holds and all(line.holds for line in story.lines)


async def _prove(stack: Stack, story: Story) -> Proof:
    with story.step("books against nodes and bitcoind") as line:
        proof = await prove(stack)
        hold(proof.holds, proof.complaint())
        line.moved, line.stands = "", "every rule of the books kept; every difference is 0 msat"
    return proof


async def main() -> int:
    """Run the demo on the stack that runs, or on one of its own."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    home = Home.current(ROOT)
    found = home.running() and home.read_state().ready
    with console.status("starting the stack (15 s; the very first time LND is built, which takes minutes)"):
        stack = Stack.running() if found else await asyncio.to_thread(Stack.start, home.folder)
    try:
        holds = await tell(stack, Story(console))
        show_links(console, stack)
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
