"""The tour in README.md, run as it stands there: what a newcomer pastes must work, and mean what the text says."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from infra.local.commands import ROOT
from tests.fixtures.stack import Bank, Json

pytestmark = pytest.mark.e2e

_LIMIT_S = 90
_NOT_EVERYWHERE = ("curl", "jq", "psql", "redis-cli", "wget")


def tour() -> str:
    """The one bash block of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return str(block)


async def run(script: str, home: str, without: Path) -> str:
    """What it prints, when every line of it worked, without the programs that a bare Debian lacks."""
    for name in _NOT_EVERYWHERE:
        (without / name).write_text("#!/bin/sh\nexit 127\n")
        (without / name).chmod(0o755)
    environ = {**os.environ, "MILLRACE_HOME": home, "PATH": f"{without}{os.pathsep}{os.environ['PATH']}"}
    child = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=ROOT,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            said, complaints = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, complaints.decode()
    return said.decode()


def read_answers(said: str) -> list[Json]:
    """The JSON documents among what was printed: one to a line, and the last one spread over many."""
    first, last = said.split("\n{\n", 1)
    lines = [json.loads(line) for line in first.splitlines() if line.startswith("{")]
    return [*lines, json.loads("{\n" + last)]


async def test_the_tour_of_the_readme_works_and_shows_what_it_says(bank: Bank, tmp_path: Path) -> None:
    said = await run(tour(), str(bank.stack.home.folder), tmp_path)

    bob, invoice, lunch, again, shoes, refused, limits, listed = read_answers(said)
    assert (invoice["status"], invoice["received_msat"]) == ("settled", 50_000_000)
    assert (lunch["kind"], lunch["status"], lunch["destination"]) == ("internal", "settled", f"@{bob['username']}")
    assert again == lunch
    assert said.lower().count("idempotency-replayed: true") == 1
    assert (shoes["kind"], shoes["status"]) == ("lightning", "settled")
    assert 0 < shoes["fee_msat"] <= shoes["max_fee_msat"] == 50_000
    assert (refused["status"], refused["code"]) == (409, "insufficient_funds")
    used = {item["kind"]: item["used_msat"] for item in limits["items"] if item["window"] == "day"}
    assert used == {"internal": 12_500_000, "lightning": 20_000_000 + shoes["fee_msat"]}
    kinds = ("opening", "invoice", "payment", "payment", "closing")
    balances = (0, 50_000_000, 37_500_000, 17_500_000 - shoes["fee_msat"], 17_500_000 - shoes["fee_msat"])
    assert [tuple(line.split(",")[1:5:3]) for line in said.splitlines() if line[:2] == "20"] == [
        (kind, str(balance)) for kind, balance in zip(kinds, balances, strict=True)
    ]
    assert "[{'currency': 'BTC', 'settled_msat': 0, 'held_msat': 0}]" in said
    assert [(row["kind"], row["direction"], row["amount_msat"], row["fee_msat"]) for row in listed["items"]] == [
        ("payment", "out", 20_000_000, shoes["fee_msat"]),
        ("payment", "out", 12_500_000, 0),
        ("invoice", "in", 50_000_000, 0),
    ]
