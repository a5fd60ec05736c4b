"""Whose key sees a withdraw link: its secret is money, and a key with a cap must not reach what does not count for it.

Seen before: with a cap of 1,000 sat a key read the links of a key without one, and took 100,000 sat.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio

from engine.domain.ids import ApiKeyId
from engine.domain.lnurl import write_lnurl
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User, bearer, is_problem
from tests.helpers.limit import SAT, capped, set_limits, used
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration
PATH = "/v1/withdraw-links"


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api")) as payers:
        yield payers


def key_of(user: User) -> str:
    return "key_" + user.headers["Authorization"].split("_")[1]


async def doors(user: User, link: Json, key: str) -> list[httpx.Response]:
    """Every answer in which this link stands: list, show, the replay of its making, and deleting it, twice."""
    sent = {"wallet_id": user.wallet_id, "amount_msat": link["amount_msat"]}
    one = f"{PATH}/{link['id']}"
    answers = [await user.get(PATH), await user.get(one), await user.post(PATH, sent, key=key)]
    return answers + [await user.http.delete(one, headers=user.headers) for _ in range(2)]


def says_nothing(answers: list[httpx.Response], link: Json) -> None:
    for answer in answers:
        assert answer.status_code in {200, 201}, answer.text
        assert link["id"] in answer.text
        assert link["url"][-32:] not in answer.text
        assert write_lnurl(link["url"]) not in answer.text
        told = answer.json()
        (shown,) = [each for each in told.get("items", [told]) if each["id"] == link["id"]]
        assert (shown["lnurl"], shown["url"], shown["amount_msat"]) == (None, None, link["amount_msat"])


async def test_a_key_with_a_cap_sees_only_the_links_it_made_itself(bank: Payers) -> None:
    owner = await bank.api.open_account()
    pocket, other = await capped(bank, owner, day=1_000), await capped(bank, owner, month=10**6)
    big = await owner.make_link(100_000 * SAT, key="big")
    small = await pocket.make_link(500 * SAT, key="small")
    says_nothing(await doors(pocket, big, "big"), big)
    says_nothing(await doors(other, big, "big"), big)
    says_nothing(await doors(other, small, "small"), small)
    for maker in (pocket, owner):  # who made it, and who may spend anything anyway
        for answer in await doors(maker, small, "small"):
            assert small["url"] in answer.text
            assert small["lnurl"] in answer.text
    assert (await owner.get(f"{PATH}/{big['id']}")).json()["url"] == big["url"]


async def test_one_links_answer_is_the_same_for_a_repeat_of_the_key_that_made_it(bank: Payers) -> None:
    owner = await bank.api.open_account()
    pocket = await capped(bank, owner, day=1_000)
    link = await pocket.make_link(5 * SAT, key="again")
    assert await pocket.make_link(5 * SAT, key="again") == link


async def test_claims_count_for_the_key_that_made_the_link_with_the_fees_they_may_cost(bank: Payers) -> None:
    await set_limits(bank, {"0": {}})
    owner = await bank.api.open_account()
    await bank.fund(owner, 10**9)
    pocket = await capped(bank, owner, day=1_000)
    link = await pocket.make_link(490 * SAT, uses=5)
    claim = {"withdraw_link_id": link["id"], "api_key_id": ApiKeyId(key_of(pocket))}
    first = await bank.pay(owner, None, 490 * SAT, **claim)
    assert await used(pocket, "api_key") == 495 * SAT
    await bank.settle(first, fee_msat=1)
    assert await bank.outcome(owner, None, 490 * SAT, **claim) == "pending"
    assert await bank.outcome(owner, None, 490 * SAT, **claim) == "spend_limit_exceeded"
    assert await used(pocket, "api_key") == 985 * SAT + 1
    assert (await pocket.get(f"{PATH}/{link['id']}")).json()["uses_left"] == 3


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_link_of_a_key_that_has_ended_is_shown_as_what_it_is(bank: Payers, end: str) -> None:
    owner = await bank.api.open_account()
    made = await bank.api.make_key(
        owner.id, ("read", "send"), expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()
    )
    maker = User(owner.http, owner.id, owner.wallet_id, bearer(made))
    link = await maker.make_link(5 * SAT)
    assert (await bank.api.http.get(link["url"])).json()["tag"] == "withdrawRequest"
    if end == "revoked":
        await bank.api.http.delete(f"/v1/accounts/{owner.id}/api-keys/{key_of(maker)}", headers=ADMIN)
    else:
        await bank.api.database.execute(
            "UPDATE bank.api_keys SET expires_at = clock_timestamp() WHERE id = $1", key_of(maker)
        )
    is_problem(await maker.get(f"{PATH}/{link['id']}"), 401, "unauthenticated")
    assert (await owner.get(f"{PATH}/{link['id']}")).json()["status"] == "deleted"
    assert [each["status"] for each in (await owner.get(PATH)).json()["items"]] == ["deleted"]
    refused = (await bank.api.http.get(link["url"])).json()
    assert (refused["status"], "withdrawn by its owner" in refused["reason"]) == ("ERROR", True)
    claim = {"withdraw_link_id": link["id"], "api_key_id": ApiKeyId(key_of(maker))}
    assert await bank.outcome(owner, None, 5 * SAT, **claim) == "withdraw_link_closed"
