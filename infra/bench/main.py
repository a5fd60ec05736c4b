"""`./run bench`: what Millrace does per second and what that costs, compared with others in one run on one machine.

It starts a stack of its own, measures, checks every balance after every turn, shows a table and stops the stack. A
missed goal is a figure; a check that does not hold is a failure, and the exit code 1. It ends only its own scenario:
the others are still measured, and everything that was measured is shown.
"""

import argparse
import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from infra.bench.report import Report, current_commit
from infra.bench.scenario import SCENARIOS, Bench
from infra.bench.servers import Servers, folder, start
from infra.local.outside import PaymentFailed
from infra.local.parts.store import Failed
from infra.local.proof import prove
from infra.local.tools import Tools


async def run(options: argparse.Namespace) -> Report:
    """Start, measure, prove, stop."""
    tools = Tools.given()
    began = time.monotonic()
    print(f"bench: starting a stack in {folder()}", file=sys.stderr, flush=True)
    stack = await asyncio.to_thread(start)
    async with AsyncExitStack() as running:
        running.push_async_callback(asyncio.to_thread, stack.stop)
        bench = Bench(Servers(stack, tools), running, options.quick, began=began)
        bench.report.quick, bench.report.commit = options.quick, current_commit()
        for name in options.only or SCENARIOS:
            await bench.attempt(name)
        bench.say("the proof: every rule of the books, and books against nodes")
        proof = await prove(stack)
        if not proof.holds:
            bench.report.failures.append(proof.complaint())
    bench.report.took_s = time.monotonic() - began
    return bench.report


def main() -> int:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure Millrace beside others.")
    parser.add_argument("--quick", action="store_true", help="shorter turns and one round less: four minutes in all")
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    report = asyncio.run(run(options))
    report.show(console)
    held = "every check held" if not report.failures else f"{len(report.failures)} failed"
    console.print(f"measured in {report.took_s:.0f} s at {report.commit}; {held}")
    if options.json is not None:
        options.json.write_text(report.to_json())
    for failure in report.failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, PaymentFailed) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bench: interrupted; the stack is stopped.", file=sys.stderr)
        sys.exit(130)
