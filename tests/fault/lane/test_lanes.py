"""Something dies between two steps of a lane. Each of its payments is settled once or not at all, and a repeat of the
request with its key tells which.

    the API has it and has not started it   →   started   →   the activity waits in its transaction
                                            →   committed, and Temporal has not been told   →   ended

The moments are made certain by holding the part that comes next: both lanes of an API are kept busy, workers are held
down, a balance row that the lane needs is locked, or Temporal is frozen while the ledger commits.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.lane import codes, lane_busy, locked_wallet, persist, rode, send, waiting_in_the_books

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

WORKERS = ["worker-1", "worker-2"]
PAYMENTS = 6
AMOUNT_MSAT = 1_000_000
FUNDS_MSAT = (PAYMENTS - 1) * AMOUNT_MSAT
"""So that one of them is refused."""


@dataclass(frozen=True)
class Crowd:
    """Requests that go together through the first API."""

    bank: Bank
    payer: Account
    payee: Account
    name: str

    @property
    def destination(self) -> str:
        return f"wallet:{self.payee.wallet_id}"

    def ask(self, wait_s: int = 60) -> "list[asyncio.Task[httpx.Response]]":
        return [
            asyncio.create_task(
                send(
                    self.bank.apis[0],
                    self.payer,
                    self.destination,
                    key=f"{self.name}-{number}",
                    wait_s=wait_s,
                    amount_msat=AMOUNT_MSAT,
                )
            )
            for number in range(PAYMENTS)
        ]

    async def settled(self) -> int:
        """How many are in the books."""
        return int(
            await self.bank.database.fetchval(
                "SELECT count(*) FROM bank.payments WHERE account_id = $1 AND status = 'settled'", self.payer.id
            )
        )

    async def check(self, asked: "list[asyncio.Task[httpx.Response]]") -> list[httpx.Response]:
        """Whatever came of the requests, their repeats tell what is in the books: each once, one refused."""
        first = await asyncio.gather(*asked, return_exceptions=True)
        repeats = await asyncio.gather(
            *(
                persist(self.bank, self.payer, self.destination, f"{self.name}-{number}", AMOUNT_MSAT)
                for number in range(PAYMENTS)
            )
        )
        assert sorted(codes(repeats)) == ["insufficient_funds"] + ["settled"] * (PAYMENTS - 1)
        for before, after in zip(first, repeats, strict=True):
            if isinstance(before, httpx.Response) and before.status_code in {201, 409}:
                assert (before.status_code, codes([before])) == (after.status_code, codes([after]))
        assert await self.settled() == PAYMENTS - 1
        assert (await self.payer.wallet())["available_msat"] == 0
        assert (await self.payee.wallet())["available_msat"] == FUNDS_MSAT
        return [answer for answer in repeats if answer.status_code == 201]


async def crowd_of(bank: Bank) -> Crowd:
    return Crowd(bank, await bank.open_account(funds_msat=FUNDS_MSAT), await bank.open_account(), secrets.token_hex(4))


@asynccontextmanager
async def a_lane_in_its_transaction(
    bank: Bank, crowd: Crowd
) -> "AsyncIterator[tuple[list[asyncio.Task[httpx.Response]], AsyncExitStack]]":
    """The lane's activity has claimed its keys and waits for the payer's balance until the locks are closed."""
    async with AsyncExitStack() as locks:
        await locks.enter_async_context(locked_wallet(bank, crowd.payer))
        await locks.enter_async_context(lane_busy(bank, bank.apis[0]))
        asked = crowd.ask()
        await waiting_in_the_books(bank, 2)
        yield asked, locks


@pytest.mark.parametrize("victims", [["api-1"], WORKERS, ["temporal"], ["postgres"]], ids=lambda names: names[0])
async def test_killed_before_the_lane_is_started(bank: Bank, victims: list[str]) -> None:
    crowd = await crowd_of(bank)
    async with lane_busy(bank, bank.apis[0]):
        asked = crowd.ask()
        await asyncio.wait(asked, timeout=0.3)
        await bank.kill(*victims)
    await crowd.check(asked)


@pytest.mark.parametrize("victims", [["api-1", "temporal"], ["postgres"]], ids=lambda names: names[-1])
async def test_killed_after_the_start_and_before_a_worker_comes(bank: Bank, victims: list[str]) -> None:
    crowd = await crowd_of(bank)
    with bank.stack.held("worker-1"), bank.stack.held("worker-2"):
        async with lane_busy(bank, bank.apis[0]):
            asked = crowd.ask(wait_s=0)
            told = await asyncio.gather(*asked)
        assert {answer.status_code for answer in told} == {202}
        assert all(rode(answer) for answer in told)
        await bank.kill(*victims)
    settled = await crowd.check(asked)
    assert {answer.json()["id"] for answer in settled} <= {answer.json()["id"] for answer in told}


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"], ["api-1"]], ids=lambda names: names[0])
async def test_killed_in_the_middle_of_the_transaction(bank: Bank, victims: list[str]) -> None:
    crowd = await crowd_of(bank)
    async with a_lane_in_its_transaction(bank, crowd) as (asked, locks):
        kills = asyncio.create_task(bank.kill(*victims))
        await asyncio.wait({kills}, timeout=0.2)
        assert await crowd.settled() == 0
        await locks.aclose()
        await kills
    await crowd.check(asked)


async def test_postgres_killed_in_the_middle_of_the_transaction(bank: Bank) -> None:
    crowd = await crowd_of(bank)
    async with a_lane_in_its_transaction(bank, crowd) as (asked, _locks):
        await asyncio.to_thread(bank.stack.kill, "postgres")
    await crowd.check(asked)


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"], ["api-1"], ["postgres"]], ids=lambda names: names[0])
async def test_killed_after_the_commit_and_before_temporal_or_a_caller_was_told(bank: Bank, victims: list[str]) -> None:
    """The lane is done again, and finds what was done; so does the repeat of a request whose answer was lost."""
    crowd = await crowd_of(bank)
    async with a_lane_in_its_transaction(bank, crowd) as (asked, locks):
        with bank.stack.frozen("temporal"):
            await locks.aclose()

            async def committed() -> bool | None:
                return True if await crowd.settled() == PAYMENTS - 1 else None

            await eventually(committed, "the lane's transaction to be committed")
            restarts = {name: bank.stack.process(name).restarts for name in victims}
            for name in restarts:
                bank.stack.kill(name, wait=False)
        for name, count in restarts.items():
            await asyncio.to_thread(bank.stack.wait_back, name, count)
    assert all(rode(answer) for answer in await crowd.check(asked))
