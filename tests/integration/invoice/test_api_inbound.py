"""An invoice is made where it can be paid, names the ways that a payer could not know, and says what cannot come in."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, Json, User, running_api

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as running:
        yield running


@pytest_asyncio.fixture
async def alice(api: Api) -> User:
    return await api.open_account(username="alice")


async def reports(api: Api, name: str, inbound_msat: int | None, announced_msat: int | None, *, ago_s: int = 0) -> None:
    """The node has told its worker so."""
    await api.database.execute(
        """INSERT INTO bank.nodes(name, pubkey, inbound_msat, announced_inbound_msat, reported_at)
           VALUES ($1, $2, $3, $4, clock_timestamp() - make_interval(secs => $5))
           ON CONFLICT (name) DO UPDATE SET inbound_msat = $3, announced_inbound_msat = $4,
               reported_at = excluded.reported_at""",
        name,
        "02" + name[-1] * 64,
        inbound_msat,
        announced_msat,
        ago_s,
    )


async def make(user: User, amount_msat: int | None = None, **more: Any) -> Json:
    body = {"wallet_id": user.wallet_id, **({} if amount_msat is None else {"amount_msat": amount_msat})}
    answer = await user.post("/v1/invoices", body, **more)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def node_and_hints(api: Api, invoice: Json) -> tuple[str, int]:
    row = await api.database.fetchrow("SELECT node, route_hints FROM bank.invoices WHERE id = $1", invoice["id"])
    assert row is not None
    return row["node"], row["route_hints"]


async def test_the_node_that_can_receive_it_makes_the_invoice(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 1_000_000, 1_000_000)
    await reports(api, "lnd-2", 5_000_000, 5_000_000)
    for _ in range(8):
        made = await make(alice, 3_000_000)
        assert await node_and_hints(api, made) == ("lnd-2", 0)
        assert (made["receivable_msat"], made["warning"]) == (5_000_000, None)


async def test_invoices_spread_over_both_nodes_that_can_receive_them(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 1_000_000, 1_000_000)
    await reports(api, "lnd-2", 5_000_000, 5_000_000)
    assert {(await node_and_hints(api, await make(alice, 1_000)))[0] for _ in range(24)} == {"lnd-1", "lnd-2"}


async def test_one_that_has_not_reported_lately_comes_last_whatever_it_could_receive(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 10**12, 10**12, ago_s=60)
    await reports(api, "lnd-2", 1_000, 1_000)
    assert await node_and_hints(api, await make(alice, 3_000_000)) == ("lnd-2", 0)
    api.nodes["lnd-2"].is_up = False
    assert await node_and_hints(api, await make(alice, 3_000_000)) == ("lnd-1", 0)


@pytest.mark.parametrize(
    ("announced_msat", "amount_msat", "hints"),
    [(0, 1_000, 1), (0, None, 1), (999, 1_000, 1), (1_000, 1_000, 0), (1_000, None, 1), (5_000, None, 0)],
)
async def test_unannounced_channels_are_named_where_announced_ones_do_not_suffice(
    api: Api, alice: User, announced_msat: int, amount_msat: int | None, hints: int
) -> None:
    await reports(api, "lnd-1", 5_000, announced_msat)
    await reports(api, "lnd-2", 0, 0)
    made = await make(alice, amount_msat)
    assert await node_and_hints(api, made) == ("lnd-1", hints)
    assert (made["receivable_msat"], made["warning"]) == (5_000 if hints else announced_msat, None)


async def test_an_amount_above_all_inbound_is_made_and_says_so(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 1_000, 1_000)
    await reports(api, "lnd-2", 2_000, 2_000)
    made = await make(alice, 2_001, key="once")
    assert await node_and_hints(api, made) == ("lnd-2", 0)
    assert (made["receivable_msat"], made["warning"]["code"]) == (2_000, "above_inbound")
    assert "2,000 msat" in made["warning"]["detail"]
    assert await make(alice, 2_001, key="once") == made
    assert sum(len(node.asked) for node in api.nodes.values()) == 1
    await reports(api, "lnd-2", 3_000, 3_000)
    shown = (await alice.get(f"/v1/invoices/{made['id']}")).json()
    assert (shown["receivable_msat"], shown["warning"]) == (3_000, None)
    assert (await alice.get("/v1/invoices")).json()["items"] == [shown]


async def test_the_banks_payments_cannot_be_read_from_what_it_can_receive(api: Api, alice: User) -> None:
    seen = set()
    for inbound_msat in (5_299_999, 5_210_001, 5_200_000):
        await reports(api, "lnd-1", inbound_msat, inbound_msat)
        seen.add((await make(alice, 5_000_000))["receivable_msat"])
    assert seen == {5_200_000}


async def test_without_any_inbound_an_invoice_says_that_only_our_users_can_pay_it(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 0, 0)
    await reports(api, "lnd-2", 0, 0)
    for amount_msat in (None, 1):
        made = await make(alice, amount_msat)
        assert (made["receivable_msat"], made["warning"]["code"]) == (0, "no_inbound")


async def test_an_invoice_that_names_no_way_is_made_at_the_next_node(api: Api, alice: User) -> None:
    """LND names no channel to a peer whom the network does not know; nobody would find the way."""
    await reports(api, "lnd-1", 9_000, 0)
    await reports(api, "lnd-2", 5_000, 0)
    api.nodes["lnd-1"].has_hints = False
    for amount_msat in (1_000, None, 5_000):
        made = await make(alice, amount_msat)
        assert await node_and_hints(api, made) == ("lnd-2", 1)
        assert made["warning"] is None
    api.nodes["lnd-2"].has_hints = False
    made = await make(alice)
    assert await node_and_hints(api, made) == ("lnd-1", 0)
    assert made["warning"]["code"] == "no_inbound"


async def test_inbound_that_no_worker_has_reported_is_not_made_up(api: Api, alice: User) -> None:
    made = await make(alice, 1_000)
    assert (made["receivable_msat"], made["warning"]) == (None, None)
    await reports(api, "lnd-1", None, None)
    await reports(api, "lnd-2", None, None)
    made = await make(alice, 1_000)
    assert (made["receivable_msat"], made["warning"]) == (None, None)
    assert (await node_and_hints(api, made))[1] == 1


async def test_an_invoice_that_is_not_open_receives_nothing(api: Api, alice: User) -> None:
    await reports(api, "lnd-1", 1_000, 1_000)
    made = await make(alice, 2_000)
    cancelled = (await alice.post(f"/v1/invoices/{made['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["receivable_msat"], cancelled["warning"]) == ("cancelled", None, None)


async def test_a_tip_page_says_when_it_cannot_be_paid_from_outside(api: Api, alice: User) -> None:
    for name in ("lnd-1", "lnd-2"):
        await reports(api, name, 1_000, 1_000)
    answer = await alice.http.post("/pay/alice", data={"amount_sat": "21"})
    page = await alice.http.get(answer.headers["location"])
    assert "can receive 1,000 msat over Lightning at the moment" in page.text


@pytest.mark.parametrize(
    ("inbound_msat", "ago_s", "most_msat"),
    [(7_777_777, 0, 7_700_000), (10**15, 0, 10**11), (0, 0, 1_000), (7_777_777, 60, 10**11), (None, 0, 10**11)],
)
async def test_strangers_are_offered_no_more_than_can_come_in(
    api: Api, alice: User, inbound_msat: int | None, ago_s: int, most_msat: int
) -> None:
    await reports(api, "lnd-1", inbound_msat, inbound_msat, ago_s=ago_s)
    offer = (await alice.http.get("/.well-known/lnurlp/alice")).json()
    assert (offer["minSendable"], offer["maxSendable"]) == (1_000, most_msat)
    assert f'max="{most_msat // 1_000}"' in (await alice.http.get("/pay/alice")).text
