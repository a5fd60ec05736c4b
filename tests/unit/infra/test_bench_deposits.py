"""Deposits in the benchmark: when each was credited, and the payments that a crowd is made of."""

from collections.abc import Sequence
from itertools import chain, repeat
from typing import cast

import asyncpg
import pytest

from infra.bench.chain import deposits
from infra.bench.chain.deposits import crowd_work, follow
from infra.bench.contest import Wrong

pytestmark = pytest.mark.unit


class FakeBooks:
    """Stands for a connection: each look finds as many deposits as it is told to."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = chain(counts, repeat(counts[-1]))

    async def fetchval(self, _query: str, _txids: Sequence[str]) -> int:
        return next(self._counts)


def books(*counts: int) -> asyncpg.Connection:
    return cast("asyncpg.Connection", FakeBooks(counts))


async def test_every_deposit_has_the_time_of_the_look_that_found_it() -> None:
    took_ms = await follow(books(0, 3, 3, 4), ["txid"], 4, "true", began=0.0)
    assert len(took_ms) == 4
    assert took_ms[0] == took_ms[2] < took_ms[3]


async def test_deposits_that_never_come_are_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deposits, "_LIMIT_S", 0.01)
    with pytest.raises(Wrong, match="of 4 deposits 3 came as far as status = 'credited'"):
        await follow(books(3), ["txid"], 4, "status = 'credited'")


def test_a_crowd_takes_as_long_as_its_last_deposit() -> None:
    work = crowd_work([1000.0, *[4000.0] * 97, 8000.0, 20_000.0])
    assert (work.done, work.elapsed_s, work.latency_ms, work.p99_ms) == (100, 20.0, 4000.0, 8000.0)
