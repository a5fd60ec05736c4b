"""Two operators decide about a deposit on the whole stack: API, Temporal, worker, PostgreSQL and bitcoind."""

import asyncio
from typing import Any

import httpx
import pytest
from temporalio.service import RPCError, RPCStatusCode

from infra.local.bitcoin_rpc import HOT
from infra.local.outside import send_on_chain
from tests.fixtures.stack import Bank, Json, eventually
from tests.helpers.operator import new_key

pytestmark = pytest.mark.integration

AMOUNT_SAT, SMALL_SAT = 70_000, 900


class Office:
    """Two operators, the hot wallet, and somebody who pays it."""

    def __init__(self, bank: Bank, carol: dict[str, str], dave: dict[str, str]) -> None:
        self.bank, self.carol, self.dave = bank, carol, dave

    async def call(self, method: str, *params: object, wallet: str | None = None) -> Any:
        return await asyncio.to_thread(self.bank.stack.bitcoin().call, method, *params, wallet=wallet)

    async def mine(self, blocks: int = 1) -> None:
        await asyncio.to_thread(self.bank.stack.bitcoin().mine, blocks)

    async def pay(self, address: str, amount_sat: int) -> str:
        """By the miner, in a block; gives the txid."""
        txid = await asyncio.to_thread(send_on_chain, self.bank.stack.bitcoin(), address, amount_sat)
        await self.mine()
        return txid

    async def deposit(self, txid: str, status: str) -> Json:
        """The deposit of this transaction, once it has this status."""

        async def look() -> Json | None:
            answer = await self.bank.next_api().get("/v1/admin/chain/search", params={"q": txid}, headers=self.carol)
            assert answer.status_code == 200, answer.text
            found = [each for each in answer.json()["deposits"] if each["status"] == status]
            return found[0] if found else None

        return await eventually(look, f"{txid} to be {status}")

    async def propose(self, deposit: Json, **body: Any) -> Json:
        path = f"/v1/admin/deposits/{deposit['id']}/decisions"
        answer = await self.bank.next_api().post(path, json={"reason": "seen", **body}, headers=self.carol)
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        return found

    async def approve(self, decision: Json) -> httpx.Response:
        path = f"/v1/admin/deposit-decisions/{decision['id']}/approve"
        return await self.bank.next_api().post(path, json={"note": "checked"}, headers=self.dave)

    async def ended(self, deposit: Json) -> None:
        """Wait until the deposit's workflow, which may not have begun yet, has ended."""
        handle = (await self.bank.temporal()).get_workflow_handle(deposit["workflow_id"])

        async def begun() -> bool | None:
            try:
                await handle.describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return None
            return True

        await eventually(begun, "the deposit's workflow to begin")
        await asyncio.wait_for(handle.result(), 60)


async def open_office(bank: Bank) -> Office:
    carol, dave = [await bank.open_account() for _ in range(2)]
    return Office(bank, await new_key(bank, carol.id, "finance"), await new_key(bank, dave.id, "finance"))


async def test_an_unattributed_deposit_is_attributed_while_its_workflow_waits(bank: Bank) -> None:
    office, alice = await open_office(bank), await bank.open_account()
    address = str(await office.call("getnewaddress", "", "bech32", wallet=HOT))  # by hand: in no book
    deposit = await office.deposit(await office.pay(address, AMOUNT_SAT), "unattributed")
    decision = await office.propose(deposit, kind="attribute", wallet_id=alice.wallet_id)
    answers = await asyncio.gather(*(office.approve(decision) for _ in range(3)))
    assert [answer.json()["status"] for answer in answers] == ["done"] * 3, [answer.text for answer in answers]
    assert (await alice.wallet())["available_msat"] == AMOUNT_SAT * 1000
    found = await office.deposit(deposit["txid"], "credited")
    assert (found["account_id"], found["place"]) == (alice.id, "suspense")
    await office.mine(6)
    await office.ended(deposit)


async def test_a_small_deposit_is_released_after_its_workflow_has_ended(bank: Bank) -> None:
    office, alice = await open_office(bank), await bank.open_account()
    given = await alice.post("/v1/addresses", {"wallet_id": alice.wallet_id})
    assert given.status_code == 201, given.text
    deposit = await office.deposit(await office.pay(given.json()["address"], SMALL_SAT), "below_minimum")
    await office.mine(6)
    await office.ended(deposit)
    decision = await office.propose(deposit, kind="release")
    answer = await office.approve(decision)
    assert answer.json()["status"] == "done", answer.text
    assert (await alice.wallet())["available_msat"] == SMALL_SAT * 1000
    await office.ended(deposit)


async def test_the_state_of_the_chain_is_that_of_bitcoind(bank: Bank) -> None:
    office = await open_office(bank)
    await office.mine()
    height = int(await office.call("getblockcount"))

    async def look() -> Json | None:
        answer = await bank.next_api().get("/v1/admin/chain", headers=office.carol)
        (wallet,) = answer.json()["wallets"]
        return wallet if wallet["tip"]["height"] >= height and wallet["bitcoind"]["height"] >= height else None

    wallet = await eventually(look, f"the chain to be shown at {height}")
    assert (wallet["problem"], wallet["lag_blocks"], wallet["network"]) == (None, 0, "regtest")
    assert (await bank.http.get("/v1/admin/chain", headers=office.carol)).json()["pool"]["target"] > 0
    assert wallet["bitcoind"]["policy"]["min_relay_sat_per_kvb"] > 0
    assert wallet["tip"]["hash"] == await office.call("getblockhash", wallet["tip"]["height"])
