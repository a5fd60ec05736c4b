"""The public page offers both ways to pay: an invoice, and the user's current address."""

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from engine.domain.bip21 import read_uri
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import fill_pool
from tests.helpers.api import Api, running_api

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, folder) as running:
        await running.open_account(username="bob")
        yield running


async def ask(api: Api, amount_sat: int) -> tuple[str, httpx.Response]:
    """The path and the page of an invoice over so much."""
    made = await api.http.post("/pay/bob", data={"amount_sat": str(amount_sat)})
    assert made.status_code == 303, made.text
    path = made.headers["location"]
    return path, await api.http.get(path)


def uris(page: httpx.Response) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="(bitcoin:[^"]+)"', page.text)]


async def test_both_ways_are_offered_in_one_uri(api: Api) -> None:
    made = await fill_pool(api.database, 3)
    form = await api.http.get("/pay/bob")
    assert uris(form) == [f"bitcoin:{made[0]}"]
    assert "at least 1,000 sat" in form.text
    path, page = await ask(api, 5_000)
    both, alone = (read_uri(each) for each in uris(page))
    assert (alone.address, alone.amount_sat, alone.lightning) == (made[0], 5_000, None)
    assert (both.address, both.amount_sat) == (made[0], 5_000)
    assert f"lightning:{both.lightning}" in page.text
    assert uris(await api.http.get(path)) == uris(page)


async def test_the_address_stays_until_it_is_paid(api: Api) -> None:
    made = await fill_pool(api.database, 3)
    for _ in range(3):
        assert uris(await api.http.get("/pay/bob")) == [f"bitcoin:{made[0]}"]
    await api.database.execute("UPDATE bank.addresses SET paid = true WHERE address = $1", made[0])
    assert uris(await api.http.get("/pay/bob")) == [f"bitcoin:{made[1]}"]


async def test_an_empty_pool_leaves_lightning_alone(api: Api) -> None:
    form = await api.http.get("/pay/bob")
    assert (form.status_code, uris(form)) == (200, [])
    _path, page = await ask(api, 5_000)
    assert (page.status_code, uris(page)) == (200, [])
    assert 'href="lightning:lnbcrt' in page.text


async def test_an_amount_below_the_minimum_is_offered_over_lightning_alone(api: Api) -> None:
    await fill_pool(api.database, 1)
    _path, page = await ask(api, 999)
    assert uris(page) == []
    _path, page = await ask(api, 1_000)
    assert len(uris(page)) == 2


async def test_an_invoice_that_has_ended_shows_no_address(api: Api) -> None:
    await fill_pool(api.database, 1)
    path, _page = await ask(api, 5_000)
    await api.database.execute("UPDATE bank.invoices SET expires_at = clock_timestamp()")
    page = await api.http.get(path)
    assert uris(page) == []
    assert "nothing was paid over Lightning" in page.text
