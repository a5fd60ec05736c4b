"""The door of addresses: made once per key, shown to their owner alone, drawn, and what happens without any."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.bip21 import read_uri
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import fill_pool
from tests.helpers.api import Api, User, is_problem, running_api

pytestmark = pytest.mark.integration
PATH = "/v1/addresses"


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, folder) as running:
        yield running


async def make_invoice(user: User, **body: object) -> dict[str, str]:
    made = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, **body})
    assert made.status_code == 201, made.text
    invoice: dict[str, str] = made.json()
    return invoice


async def test_an_address_is_made_shown_listed_and_drawn(api: Api) -> None:
    made = await fill_pool(api.database, 3)
    user, other = await api.open_account(), await api.open_account()
    answers = [await user.post(PATH, {"wallet_id": user.wallet_id}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    first = answers[0].json()
    assert first["address"] == made[0]
    assert first["bip21"] == f"bitcoin:{made[0]}"
    assert (first["wallet_id"], first["paid"], first["purpose"]) == (user.wallet_id, False, "api")
    assert (await user.get(f"{PATH}/{made[0]}")).json() == first
    assert (await user.get(f"{PATH}/{made[0].upper()}")).json() == first
    page = (await user.get(PATH, limit=2)).json()
    assert [each["address"] for each in page["items"]] == [made[2], made[1]]
    rest = (await user.get(PATH, limit=2, after=page["next_cursor"])).json()
    assert (rest["items"], rest["next_cursor"]) == ([first], None)
    drawn = await user.get(f"{PATH}/{made[0]}/qr.svg")
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/svg+xml")
    assert 'xmlns="http://www.w3.org/2000/svg"' in drawn.text
    for path in (f"{PATH}/{made[0]}", f"{PATH}/{made[0]}/qr.svg", f"{PATH}/nothing"):
        is_problem(await other.get(path), 404, "not_found")
    assert (await other.get(PATH)).json() == {"items": [], "next_cursor": None}


async def test_a_repeat_of_a_key_gives_the_first_answer(api: Api) -> None:
    await fill_pool(api.database, 5)
    user = await api.open_account()
    body = {"wallet_id": user.wallet_id}
    answers = await asyncio.gather(*(user.post(PATH, body, key="one") for _ in range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sorted("Idempotency-Replayed" in answer.headers for answer in answers) == [False, *[True] * 5]
    assert (await user.post(PATH, body, key="two")).json()["address"] != answers[0].json()["address"]
    is_problem(await user.post(PATH, {**body, "invoice_id": None}, key="one"), 409, "idempotency_conflict")
    assert len((await user.get(PATH)).json()["items"]) == 2


async def test_an_empty_pool_says_so_and_leaves_the_key_unused(api: Api) -> None:
    user = await api.open_account()
    body = {"wallet_id": user.wallet_id}
    answer = await user.post(PATH, body, key="one")
    is_problem(answer, 503, "no_address_ready")
    assert answer.headers["Retry-After"]
    await fill_pool(api.database, 1)
    assert (await user.post(PATH, body, key="one")).status_code == 201


async def test_a_user_who_asks_for_thousands_leaves_enough_for_others(api: Api) -> None:
    await fill_pool(api.database, 40)
    await api.database.execute(
        """INSERT INTO bank.rulebooks(name, version, content, note, set_by)
           SELECT name, 2, jsonb_set(content, '{unpaid_addresses}', '5'), 'test', 'test'
             FROM bank.rulebooks WHERE name = 'deposits'"""
    )
    greedy, other = await api.open_account(), await api.open_account()
    answers = await asyncio.gather(*(greedy.post(PATH, {"wallet_id": greedy.wallet_id}) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["address"] for answer in answers}) == 5
    assert (await other.post(PATH, {"wallet_id": other.wallet_id})).status_code == 201
    assert await api.database.fetchval("SELECT count(*) FROM bank.addresses WHERE wallet_id IS NULL") == 34


async def test_a_uri_with_an_invoice_offers_both_ways(api: Api) -> None:
    made = await fill_pool(api.database, 4)
    user = await api.open_account()
    for amount_msat, amount_sat in ((250_000_000, 250_000), (1_500, 2), (None, None)):
        invoice = await make_invoice(user, **({} if amount_msat is None else {"amount_msat": amount_msat}))
        body = {"wallet_id": user.wallet_id, "invoice_id": invoice["id"]}
        answer = (await user.post(PATH, body, key=f"both {amount_msat}".replace(" ", "-"))).json()
        uri = read_uri(answer["bip21"])
        assert (uri.address, uri.lightning, uri.amount_sat) == (answer["address"], invoice["bolt11"], amount_sat)
        assert answer["address"] in made
        again = await user.post(PATH, body, key=f"both-{amount_msat}")
        assert (again.json(), again.headers["Idempotency-Replayed"]) == (answer, "true")


async def test_an_invoice_is_offered_beside_if_it_is_open_and_of_this_wallet(api: Api) -> None:
    await fill_pool(api.database, 1)
    user, other = await api.open_account(), await api.open_account()
    foreign = await make_invoice(other)
    invoice = await make_invoice(user)
    body = {"wallet_id": user.wallet_id, "invoice_id": invoice["id"]}
    is_problem(await user.post(PATH, {**body, "invoice_id": foreign["id"]}), 404, "not_found")
    is_problem(await user.post(PATH, {**body, "invoice_id": "inv_nothing"}), 404, "not_found")
    is_problem(await user.post(PATH, {"wallet_id": other.wallet_id}), 404, "not_found")
    for change, status, code in (
        ("status = 'cancelled'", 409, "invoice_cancelled"),
        ("status = 'open', expires_at = clock_timestamp()", 422, "invoice_expired"),
    ):
        await api.database.execute(f"UPDATE bank.invoices SET {change} WHERE id = $1", invoice["id"])
        is_problem(await user.post(PATH, body), status, code)
    assert await api.database.fetchval("SELECT count(*) FROM bank.addresses WHERE wallet_id IS NULL") == 1


async def test_scopes_and_closed_accounts(api: Api) -> None:
    await fill_pool(api.database, 2)
    reader = await api.open_account(scopes=("read",))
    is_problem(await reader.post(PATH, {"wallet_id": reader.wallet_id}), 403, "forbidden")
    receiver = await api.open_account(scopes=("receive",))
    address = (await receiver.post(PATH, {"wallet_id": receiver.wallet_id})).json()["address"]
    for path in (PATH, f"{PATH}/{address}", f"{PATH}/{address}/qr.svg"):
        is_problem(await receiver.get(path), 403, "forbidden")
    await api.database.execute("UPDATE bank.accounts SET status = 'locked' WHERE id = $1", receiver.id)
    assert (await receiver.post(PATH, {"wallet_id": receiver.wallet_id})).status_code == 201
