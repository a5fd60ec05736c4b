"""Whoever pays an LNURL outside is shown what its service has for him: afterwards, and for as long as the payment."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from infra.local.outside import Outside
from tests.fixtures.stack import Bank
from tests.helpers.lnurl_service import Service, lnurl_service

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def service(shop: Outside) -> AsyncIterator[Service]:
    async with lnurl_service(shop) as running:
        yield running


@pytest.mark.parametrize(
    ("way", "shown"),
    [
        ("honest", None),
        ("message", {"tag": "message", "message": "Thank you!", "description": None, "url": None}),
        ("hostile", {"tag": "message", "message": "Thank  you!", "description": None, "url": None}),
        ("url", {"tag": "url", "message": None, "description": "Your order", "url": "{url}/order/7"}),
        ("aes", {"tag": "aes", "message": "Grüße: 1234", "description": "Your code", "url": None}),
    ],
)
async def test_an_action_is_shown_once_the_payment_is_settled(
    bank: Bank, service: Service, way: str, shown: dict[str, Any] | None
) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    if shown and shown["url"]:
        shown = {**shown, "url": shown["url"].format(url=service.url)}
    paid = (await alice.pay(service.lnurl(way), key="once", amount_msat=100_000)).json()
    assert (paid["status"], paid["success_action"]) == ("settled", shown)
    assert (await alice.pay(service.lnurl(way), key="once", amount_msat=100_000)).json() == paid
    assert await alice.payment(paid["id"]) == paid
    assert (await alice.get("/v1/payments")).json()["items"] == [paid]


@pytest.mark.parametrize("way", ["url-elsewhere", "lottery"])
async def test_an_action_that_cannot_be_shown_is_not_paid_for(bank: Bank, service: Service, way: str) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    refused = await alice.pay(service.lnurl(way), amount_msat=100_000)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_destination"), refused.text
    assert (await alice.wallet())["balance_msat"] == 1_000_000
    assert (await alice.get("/v1/payments")).json()["items"] == []
