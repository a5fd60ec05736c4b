"""Statements: opening + movements = closing, for any two moments, whoever posts meanwhile, in JSON and in CSV."""

import asyncio
import csv
import io
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.http.paging import cursor as make_cursor
from engine.views import statement as statements
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, Json, User, is_problem, running_api
from tests.helpers.teller import Teller, open_teller

pytestmark = pytest.mark.integration

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, rate_limit_per_minute=0) as it:
        yield it


@pytest_asyncio.fixture(scope="module")
async def teller(api: Api) -> Teller:
    return await open_teller(api)


async def statement(user: User, **query: Any) -> Json:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/statement", **query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def sheet(user: User, **query: Any) -> list[dict[str, str]]:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/statement", format="csv", **query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.replace("\r\n", "").count("\r") == 0
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def adds_up(opening: int, closing: int, movements: list[Any]) -> None:
    balance = opening
    for movement in movements:
        balance += int(movement["amount_msat"])
        assert int(movement["balance_msat"]) == balance
    assert balance == closing


async def test_every_kind_of_line_says_what_it_was(api: Api, teller: Teller) -> None:
    alice, bob = await api.open_account(username="st_alice"), await api.open_account()
    invoice_id = await teller.receive(alice, 250_000, "tip")
    row = await teller.hold(alice, 100_000, 1_000, "=cmd|' /C calc'!A0")
    assert [line["amount_msat"] for line in (await statement(alice))["movements"]] == [250_000]
    await teller.settle(row, 350)
    await teller.release(await teller.hold(alice, 10_000, 100))
    paid = await teller.pay_user(alice, bob, 20_000, 'lunch, with "friends"\nand more')
    back = await teller.pay_user(bob, alice, 5_000)
    by_invoice = await teller.pay_user(alice, bob, 1_000, by_invoice=True)
    found = await statement(alice)
    expected = [
        ("invoice", 250_000, 0, 250_000, "lightning", "tip", invoice_id),
        ("payment", -100_350, 350, 149_650, "lnbcrt1somebody", "=cmd|' /C calc'!A0", row.id),
        ("payment", -20_000, 0, 129_650, f"wallet:{bob.wallet_id}", 'lunch, with "friends"\nand more', paid),
        ("payment", 5_000, 0, 134_650, f"wallet:{bob.wallet_id}", None, back),
    ]
    names = ("kind", "amount_msat", "fee_msat", "balance_msat", "counterparty", "memo", "reference")
    assert [tuple(line[name] for name in names) for line in found["movements"][:4]] == expected
    last = found["movements"][4]
    assert (last["kind"], last["reference"], last["balance_msat"]) == ("payment", by_invoice, 133_650)
    assert (found["opening_msat"], found["closing_msat"], found["next_cursor"]) == (0, 133_650, None)
    theirs = (await statement(bob))["movements"]
    assert [(line["kind"], line["counterparty"]) for line in theirs] == [
        ("payment", "@st_alice"),
        ("payment", f"wallet:{alice.wallet_id}"),
        ("invoice", "@st_alice"),
    ]
    lines = await sheet(alice)
    assert [line["kind"] for line in lines] == ["opening", "invoice", *["payment"] * 4, "closing"]
    assert lines[2]["memo"] == "'=cmd|' /C calc'!A0"
    assert lines[3]["memo"] == expected[2][5]
    adds_up(int(lines[0]["balance_msat"]), int(lines[-1]["balance_msat"]), lines[1:-1])


async def test_an_empty_wallet_and_an_empty_period(api: Api, teller: Teller) -> None:
    user = await api.open_account()
    found = await statement(user)
    assert (found["opening_msat"], found["closing_msat"], found["movements"]) == (0, 0, [])
    await teller.receive(user, 5_000)
    for query in ({"from": "2000-01-01T00:00:00Z", "to": "2000-01-01T00:00:00Z"}, {"to": "2000-01-01T00:00:00Z"}):
        found = await statement(user, **query)
        assert (found["opening_msat"], found["closing_msat"], found["movements"]) == (0, 0, [])
        assert found["from"] == found["to"] == "2000-01-01T00:00:00Z"
    found = await statement(user, **{"from": "2999-01-01T00:00:00Z"})
    assert (found["opening_msat"], found["closing_msat"], found["movements"]) == (5_000, 5_000, [])
    assert [line["kind"] for line in await sheet(user, **{"from": "2999-01-01T00:00:00Z"})] == ["opening", "closing"]


async def test_the_end_belongs_to_the_next_period(api: Api, teller: Teller) -> None:
    user = await api.open_account()
    for amount in (1, 10, 100):
        await teller.receive(user, amount)
    times = [line["time"] for line in (await statement(user))["movements"]]
    whole = await statement(user, **{"from": times[0], "to": times[2]})
    assert (whole["opening_msat"], whole["closing_msat"]) == (0, 11)
    assert [line["amount_msat"] for line in whole["movements"]] == [1, 10]
    rest = await statement(user, **{"from": times[2]})
    assert (rest["opening_msat"], rest["closing_msat"]) == (11, 111)
    offset = datetime.fromisoformat(times[1]).astimezone(tz=None) + timedelta(0)
    assert (await statement(user, **{"from": offset.isoformat()}))["opening_msat"] == 1


async def test_the_pages_of_one_statement_have_one_frame_while_others_pay(api: Api, teller: Teller) -> None:
    user = await api.open_account()
    for amount in range(1, 12):
        await teller.receive(user, amount)
    first = await statement(user, limit=4)
    pages, after = [first], first["next_cursor"]
    while after:
        await teller.receive(user, 1_000)
        pages.append(await statement(user, limit=4, after=after))
        after = pages[-1]["next_cursor"]
    assert [len(page["movements"]) for page in pages] == [4, 4, 3]
    frame = ("from", "to", "opening_msat", "closing_msat")
    assert len({tuple(page[name] for name in frame) for page in pages}) == 1
    adds_up(first["opening_msat"], first["closing_msat"], [line for page in pages for line in page["movements"]])
    cursor = first["next_cursor"]
    path = f"/v1/wallets/{user.wallet_id}/statement"
    for query in ({"from": "2001-01-01T00:00:00Z"}, {"to": "2900-01-01T00:00:00Z"}, {"format": "csv"}):
        is_problem(await user.get(path, after=cursor, **query), 422, "invalid_request")
    is_problem(await user.get(path, after=cursor[:-4] + "AAAA"), 422, "invalid_request")
    name = f'statement {user.wallet_id} {{"begins_at":null,"ends_at":null}}'
    for versions in ("2.0.3", "0.4.3", "3.3.2"):  # whoever knows how cursors are made gets no frame that is none
        made = make_cursor(datetime.fromisoformat(first["to"]), versions, name)
        is_problem(await user.get(path, after=made), 422, "invalid_request")
    made = make_cursor(datetime.fromisoformat(first["to"]), "0.4.11", name)
    assert (await statement(user, after=made))["movements"][0] == pages[1]["movements"][0]
    other = await api.open_account()
    is_problem(await other.get(path), 404, "not_found")
    is_problem(await other.get(f"/v1/wallets/{other.wallet_id}/statement", after=cursor), 422, "invalid_request")


DEEDS = st.lists(
    st.tuples(st.sampled_from(["receive", "send", "fail", "pay", "paid"]), st.integers(1, 40_000)), max_size=8
)


@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(alone=DEEDS, together=DEEDS, cuts=st.lists(st.integers(0, 1_000), min_size=2, max_size=6))
async def test_opening_and_movements_are_closing_for_any_two_moments(
    api: Api, teller: Teller, alone: list[tuple[str, int]], together: list[tuple[str, int]], cuts: list[int]
) -> None:
    user, other = await api.open_account(), await api.open_account()
    begun = datetime.now(UTC)
    await teller.receive(user, 1_000_000)
    await teller.receive(other, 1_000_000)

    async def do(deed: str, amount: int) -> None:
        if deed == "receive":
            await teller.receive(user, amount)
        elif deed in ("send", "fail"):
            row = await teller.hold(user, amount, 100)
            await (teller.settle(row, amount % 100) if deed == "send" else teller.release(row))
        else:
            await teller.pay_user(*((user, other) if deed == "pay" else (other, user)), amount)

    async def ask(share: int) -> Json:
        moment = begun + (datetime.now(UTC) - begun) * share // 1_000
        return await statement(user, **{"from": moment.isoformat()})

    for deed, amount in alone:
        await do(deed, amount)
    answers = await asyncio.gather(*(ask(share) for share in cuts), *(do(*deed) for deed in together))
    for answer in answers[: len(cuts)]:
        assert isinstance(answer, dict)
        adds_up(answer["opening_msat"], answer["closing_msat"], answer["movements"])
    span = datetime.now(UTC) - begun
    moments = sorted(begun + span * share // 1_000 for share in cuts)
    pairs = itertools.pairwise(moments)
    frames = [await statement(user, **{"from": one.isoformat(), "to": two.isoformat()}) for one, two in pairs]
    for found in frames:
        adds_up(found["opening_msat"], found["closing_msat"], found["movements"])
    for one, following in itertools.pairwise(frames):
        assert one["closing_msat"] == following["opening_msat"]
    wallet = (await user.get(f"/v1/wallets/{user.wallet_id}")).json()
    assert (await statement(user))["closing_msat"] == wallet["balance_msat"]


async def test_no_connection_is_held_for_a_slow_reader(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE", 2)
    user = await api.open_account()
    for amount in range(1, 6):
        await teller.receive(user, amount)
    pool = api.resources.pool
    account = await api.database.fetchval("SELECT ledger_account_id FROM bank.wallets WHERE id = $1", user.wallet_id)
    async with pool.acquire() as conn:
        period = await statements.read_period(conn, account, None, None)
    text = ""
    async for piece in statements.csv_statement(pool, account, period):
        assert pool.get_size() == pool.get_idle_size()
        await teller.receive(user, 1_000_000)
        text += piece
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["amount_msat"] for line in lines] == ["0", "1", "2", "3", "4", "5", "0"]
    assert lines[-1]["balance_msat"] == "15"


async def test_statements_add_up_even_where_a_clock_was_set_back(
    api: Api, teller: Teller, shared_ledger_db: Database
) -> None:
    user = await api.open_account()
    for amount in range(1, 8):
        await teller.receive(user, amount)
    by_hand = await asyncpg.connect(shared_ledger_db.superuser_dsn)
    try:
        await by_hand.execute("SET session_replication_role = replica")
        await by_hand.execute(
            """UPDATE ledger.entries SET posted_at = posted_at - interval '1 hour'
                WHERE version IN (3, 4) AND account_id = (SELECT ledger_account_id FROM bank.wallets WHERE id = $1)""",
            user.wallet_id,
        )
    finally:
        await by_hand.close()
    times = sorted(line["time"] for line in (await statement(user, **{"from": "2000-01-01T00:00:00Z"}))["movements"])
    assert len(times) == 7
    for one, two in itertools.combinations_with_replacement(times, 2):
        found = await statement(user, **{"from": one, "to": two})
        adds_up(found["opening_msat"], found["closing_msat"], found["movements"])
