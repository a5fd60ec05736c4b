"""A payment to an address of a user of this bank stays in the books; any other address points to withdrawals."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import User, is_problem
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_payers(shared_ledger_db, folder) as payers:
        await fill_pool(payers.api.database, 50)
        yield payers


async def address_for(user: User) -> str:
    answer = await user.post("/v1/addresses", {"wallet_id": user.wallet_id})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["address"])


async def decode(user: User, destination: str) -> dict[str, object]:
    answer = await user.post("/v1/decode", {"destination": destination})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_our_own_address_is_an_internal_payment(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    address = await address_for(bob)
    for text, amount_msat in (
        (address, None),
        (address.upper(), None),
        (f"bitcoin:{address}", None),
        (f"BITCOIN:{address.upper()}?amount=0.00001&label=bob", 1_000_000),
    ):
        found = await decode(alice, text)
        assert (found["kind"], found["own"], found["destination"]) == ("internal", True, address)
        assert found["amount_msat"] == amount_msat
        quote = await alice.quote(text, **({} if amount_msat else {"amount_msat": 5}))
        assert (quote["kind"], quote["fee_source"], quote["amount_msat"]) == ("internal", "exact", amount_msat or 5)


async def test_a_payment_to_an_address_is_refused_with_its_reason(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    mine, his, free = await address_for(alice), await address_for(bob), address_of(49)
    uri = f"bitcoin:{his}?amount=0.00001"
    for destination, amount_msat, code in (
        (his, None, "amount_required"),
        (uri, 1_000_001, "amount_mismatch"),
        (mine, 5, "self_payment"),
        (f"bitcoin:{mine}?amount=1", None, "self_payment"),
        (free, 5, "use_withdrawals"),  # in the pool: it is nobody's
        (address_of(10**9), 5, "use_withdrawals"),
        (f"bitcoin:{address_of(10**9)}?amount=1", None, "use_withdrawals"),
        (address_of(3, network="mainnet"), 5, "wrong_network"),
        (address_of(3, network="testnet", taproot=True), 5, "wrong_network"),
        ("mk2QpYatsKicvFVuTAQLBryyccRXMUaGHP", 5, "use_withdrawals"),
        (his[:-1] + ("q" if his[-1] != "q" else "p"), 5, "invalid_destination"),
        (f"bitcoin:{his}?amount=1e3", None, "invalid_destination"),
    ):
        is_problem(await alice.pay(destination, amount_msat=amount_msat), 422, code)
        body = {"wallet_id": alice.wallet_id, "destination": destination, "amount_msat": amount_msat}
        is_problem(await alice.post("/v1/payments/quote", body), 422, code)
    for destination in (address_of(10**9), free):
        is_problem(await alice.post("/v1/decode", {"destination": destination}), 422, "use_withdrawals")


async def test_an_invoice_in_a_uri_is_paid_as_before(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    invoice = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 7_000})).json()
    made = await bob.post("/v1/addresses", {"wallet_id": bob.wallet_id, "invoice_id": invoice["id"]})
    found = await decode(alice, made.json()["bip21"])
    assert (found["kind"], found["own"], found["payment_hash"]) == ("bolt11", True, invoice["payment_hash"])
