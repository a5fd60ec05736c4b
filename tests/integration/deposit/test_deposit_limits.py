"""Limits on what comes in on chain: counted from the first sight, shown, and what exceeds them is held."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.bank.limit import LimitBooks, counts_of, find_payer
from engine.bank.rulebook import read_current, set_in_tx
from engine.domain.errors import Refused
from engine.domain.ids import AccountId, DepositId, WalletId
from engine.domain.limit import WINDOWS, Count
from engine.domain.money import Msat
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, User, is_problem
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.limit import rulebook, set_limits, set_price, shown, used
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path_factory.mktemp("api"), price_max_age_s=3600) as payers:
        yield payers


@pytest.fixture
def depositor(bank: Payers) -> Depositor:
    return Depositor(bank.pool)


async def status(user: User, found: DepositId) -> str:
    return str((await user.get(f"/v1/deposits/{found}")).json()["status"])


async def test_a_deposit_counts_from_its_first_sight_and_what_exceeds_is_held(
    bank: Payers, depositor: Depositor
) -> None:
    await set_limits(bank, {"1": {"deposit": {"day_sat": 10_000, "week_sat": 20_000}}})
    user = await bank.api.open_account(level=1)
    first = await depositor.see(user, 6_000)
    items = await shown(user)
    assert list(items) == [("deposit", "day"), ("deposit", "week")]
    assert (items["deposit", "day"]["used_msat"], items["deposit", "day"]["remaining_msat"]) == (6_000_000, 4_000_000)
    over = await depositor.see(user, 4_001)
    exact = await depositor.see(user, 4_000)
    assert await used(user, "deposit") == 10_000_000
    for each in (first, over, exact):
        await depositor.book(each, 10)
    assert [await status(user, each) for each in (first, over, exact)] == ["credited", "held", "credited"]
    wallet = (await user.get(f"/v1/wallets/{user.wallet_id}")).json()
    assert (wallet["balance_msat"], wallet["incoming_msat"]) == (10_000_000, 0)
    assert await used(user, "deposit") == 10_000_000
    await depositor.release(over, to=user)
    assert await user.balance() == (14_001_000, 0)


async def test_a_dropped_deposit_is_given_back_and_a_fee_does_not_count(bank: Payers, depositor: Depositor) -> None:
    await set_limits(bank, {"0": {"deposit": {"month_sat": 10_000}}})
    user = await bank.api.open_account()
    gone = await depositor.see(user, 10_000)
    assert await used(user, "deposit", "month") == 10_000_000
    await depositor.drop(gone)
    assert await used(user, "deposit", "month") == 0
    await depositor.charge([{"flat_msat": 1_000_000}])
    found = await depositor.see(user, 10_000)
    await depositor.book(found, 10)
    assert await used(user, "deposit", "month") == 9_000_000


async def test_a_deposit_that_is_credited_again_counts_once(bank: Payers, depositor: Depositor) -> None:
    await set_limits(bank, {"0": {"deposit": {"day_sat": 10_000}}})
    user = await bank.api.open_account()
    found = await depositor.see(user, 8_000)
    await depositor.book(found, 10)
    await depositor.take_back(found)
    await depositor.show_again(found)
    await depositor.book(found, 11)
    assert await status(user, found) == "credited"
    assert await used(user, "deposit") == 8_000_000


@pytest.mark.parametrize(
    ("later_sat", "after", "used_sat"),
    [
        ([12_001], ["held"], 8_000),
        ([12_000], ["credited"], 12_000),
        ([5_000, 9_000], ["credited", "credited"], 9_000),
        ([5_000, 12_001], ["credited", "held"], 8_000),
        ([9_000, 12_000, 12_001], ["credited", "credited", "held"], 12_000),
    ],
)
async def test_a_deposit_that_returns_with_more_counts_what_it_has_not_counted(
    bank: Payers, depositor: Depositor, later_sat: list[int], after: list[str], used_sat: int
) -> None:
    """Reversed, and replaced by another transaction of its sender: it must not pass the limit a second time."""
    await set_limits(bank, {"0": {"deposit": {"day_sat": 12_000}}})
    user = await bank.api.open_account()
    found = await depositor.see(user, 8_000)
    await depositor.book(found, 10)
    became = []
    for height, amount_sat in enumerate(later_sat, start=11):
        await depositor.take_back(found)
        await depositor.show_other(found, amount_sat)
        await depositor.book(found, height)
        became.append(await status(user, found))
    assert became == after
    assert await used(user, "deposit") == 1000 * used_sat


async def test_a_deposit_does_not_count_towards_what_leaves(bank: Payers, depositor: Depositor) -> None:
    await set_limits(bank, {"1": {"deposit": {"day_sat": 10}, "internal": {"day_sat": 1_000}}})
    user, payee = await bank.api.open_account(level=1), await bank.api.open_account()
    await bank.fund(user, 10**9)
    assert await bank.outcome(user, payee, 1_000_000) == "settled"
    await depositor.see(user, 10)
    assert await used(user, "deposit") == 10_000
    assert await used(user, "internal") == 1_000_000
    assert await bank.outcome(user, payee, 1) == "limit_exceeded"


async def test_a_limit_in_a_currency_takes_the_price_of_the_moment(bank: Payers, depositor: Depositor) -> None:
    await set_price(bank, "USD", "100000.00")
    await set_limits(bank, {"0": {"deposit": {"day": {"USD": "10.00"}}}})
    user = await bank.api.open_account()
    found = await depositor.see(user, 9_000)
    assert await used(user, "deposit:USD") == "9.00"
    await set_price(bank, "USD", "200000.00")
    over = await depositor.see(user, 501)
    exact = await depositor.see(user, 500)
    for each in (found, over, exact):
        await depositor.book(each, 10)
    assert [await status(user, each) for each in (found, over, exact)] == ["credited", "held", "credited"]
    assert await used(user, "deposit:USD") == "10.00"


async def test_without_any_price_the_deposit_is_held(bank: Payers, depositor: Depositor) -> None:
    content: dict[str, Any] = {"levels": {"0": {"deposit": {"day": {"CHF": "1.00"}, "day_sat": 100}}}}
    async with transaction(bank.pool) as conn:
        version = (await read_current(conn, "limits")).version + 1
        await set_in_tx(conn, "limits", content, version=version, note="test", set_by="test")
    user = await bank.api.open_account()
    async with bank.pool.acquire() as conn:
        payer = await find_payer(conn, AccountId(user.id), WalletId(user.wallet_id), None)
        assert payer is not None
        assert (payer.key_id, payer.caps) == (None, {})
        with pytest.raises(Refused) as refused:
            await counts_of(conn, LimitBooks(), payer, "deposit", Msat(1), {})
        assert (refused.value.code, refused.value.fields["currency"]) == ("price_unavailable", "CHF")
        counts = await counts_of(conn, LimitBooks(), payer, "deposit", Msat(1), {"CHF": 50_000_000_000})
    assert counts == [
        Count("deposit", 1, {WINDOWS["day"]: 100_000}),
        Count("deposit:CHF", 1, {WINDOWS["day"]: 1_000_000}),
    ]
    found = await depositor.see(user, 1)
    await depositor.book(found, 10)
    assert await status(user, found) == "held"


async def test_the_limits_of_a_key_do_not_bind_what_comes_in(bank: Payers, depositor: Depositor) -> None:
    owner = await bank.api.open_account()
    await bank.api.make_key(owner.id, ("read",), spend_limit_sat={"day": 1})
    found = await depositor.see(owner, 100_000)
    await depositor.book(found, 10)
    assert await status(owner, found) == "credited"


async def test_a_rulebook_with_deposits_is_read_and_checked(bank: Payers) -> None:
    content = {"0": {"deposit": {"day_sat": 5, "week_sat": 4}}}
    body = {"content": {"levels": content}, "note": "x", "version": (await rulebook(bank))["version"] + 1}
    answer = await bank.api.http.put("/v1/admin/limits", json=body, headers=ADMIN)
    assert is_problem(answer, 422, "invalid_request")["field"] == "levels.0.deposit"
