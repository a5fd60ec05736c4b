"""Payouts beside the account of the hot wallet, on a real bitcoind: in flight, at rest, and what is planted there."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.bank.chain.coin import list_unlinked
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Outpoint
from engine.domain.ids import AccountId, Txid
from infra.local.bitcoin_rpc import HOT
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositor, Depositors
from tests.helpers.hot_wallet import by_hand
from tests.helpers.hot_wallet.comparison import HotReconciliation
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank


@pytest.fixture
def hot(bank: Depositors) -> HotReconciliation:
    return HotReconciliation(bank)


@pytest_asyncio.fixture(params=["bech32", "bech32m"])
async def desk(bank: Depositors, chain: Chain, request: pytest.FixtureRequest) -> AsyncIterator[PayoutDesk]:
    """Change of either kind."""
    rpc = Rpc(chain.url, chain.auth_file)
    yield PayoutDesk(bank, rpc, change_type=request.param)
    await rpc.close()


@pytest_asyncio.fixture
async def alice(bank: Depositors) -> Depositor:
    """Who has two deposits."""
    user = await bank.user()
    for amount_sat in (400_000, 300_000):
        bank.chain.pay(await bank.address(user), amount_sat)
    bank.chain.mine(6)
    await bank.follow()
    return user


async def test_a_payout_is_in_flight_until_it_is_booked_and_nothing_after_it(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made = await desk.formed(alice, 50_000)
    assert await hot.in_flight() == []
    await desk.step(made, times=2)
    assert await hot.in_flight() == [], "signed, and nobody has it"
    await desk.step(made)
    takes_sat, txid = await desk.takes(made), await desk.txid(made)
    sent = [("payout_not_booked", txid, takes_sat)]
    assert await hot.in_flight() == sent, "the pump has not seen it"
    await bank.follow()
    assert await hot.in_flight() == sent
    await desk.step(made)
    assert await hot.in_flight() == []
    chain.mine()
    assert await hot.in_flight() == []
    await bank.follow()
    await desk.step(made)
    assert await hot.in_flight() == []
    chain.mine(6)
    await bank.follow()
    await desk.step(made, times=2)
    assert (await desk.story(made)).payout.status == "final"
    assert await hot.in_flight() == []
    async with bank.pool.acquire() as conn:
        change = [each for each in await list_unlinked(conn, AccountId("nobody"), 9) if each.outpoint.txid == txid]
    assert [each.change for each in change] == [True]


async def test_a_payout_that_is_booked_before_the_pump_sees_it_is_no_difference(
    bank: Depositors, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    await desk.booked(alice, 50_000)
    assert await hot.in_flight() == []
    await bank.follow()
    assert await hot.in_flight() == []


async def test_a_booked_payout_that_was_evicted_is_in_flight_until_it_is_sent_again(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made, txid = await desk.booked(alice, 50_000)
    await bank.follow()
    chain.evict(txid)
    gone = ("payout_not_in_chain", txid, -(await desk.takes(made)))

    async def others() -> set[str]:
        found = await hot.in_flight()
        assert gone in found
        return {kind for kind, _, _ in found if kind != gone[0]}

    assert await others() <= {"coin_not_listed"}, "the pump has not seen it"
    await bank.follow()
    assert await others() <= {"coin_not_listed"}
    chain.call("abandontransaction", txid, wallet=HOT)
    await bank.follow()
    assert await others() == set(), "its coins are listed again"
    await desk.step(made)
    assert await hot.in_flight() == []
    await bank.follow()
    assert await hot.in_flight() == []


async def test_a_reorganisation_takes_a_payout_out_of_its_block_and_it_stays_explained(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made, txid = await desk.booked(alice, 50_000)
    chain.mine()
    await bank.follow()
    await desk.step(made)
    chain.reorg(1, without=[txid])
    assert await hot.in_flight() == [], "it waits in the mempool again"
    await bank.follow()
    assert await hot.in_flight() == []
    await desk.step(made)
    chain.evict(txid)
    chain.call("abandontransaction", txid, wallet=HOT)
    gone = [("payout_not_in_chain", txid, -(await desk.takes(made)))]
    assert await hot.in_flight() == gone
    await bank.follow()
    assert await hot.in_flight() == gone
    await desk.step(made, times=2)
    await bank.follow()
    assert await hot.in_flight() == []


async def test_another_version_than_the_booked_one_is_in_flight_with_the_fees_difference(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made, first = await desk.booked(alice, 50_000)
    await bank.follow()
    raw = (await desk.story(made)).versions[0].raw
    second = await desk.bumped(made, 9_000)
    assert second != first
    more_sat = await desk.takes(made) - await desk.takes(made, 0)
    assert await hot.in_flight() == [("payout_fee", second, more_sat)], "the pump has not seen it"
    await bank.follow()
    assert await hot.in_flight() == [("payout_fee", second, more_sat)]
    await desk.step(made)
    assert await hot.in_flight() == []
    block = chain.extend(chain.tip(), [[str(raw)]])
    assert len(block) == 1
    less = [("payout_fee", first, -more_sat)]
    assert await hot.in_flight() == less, "the first one is in a block after all"
    await bank.follow()
    assert await hot.in_flight() == less
    await desk.step(made, times=2)
    assert await hot.in_flight() == []


async def test_children_and_consolidations_take_their_fees(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made, _ = await desk.booked(alice, 50_000)
    young = await desk.child(made, 9_000)
    await desk.step(young, times=3)
    sent = [("payout_not_booked", await desk.txid(young), await desk.takes(young))]
    assert await hot.in_flight() == sent, "parent and child are not seen yet"
    await bank.follow()
    assert await hot.in_flight() == sent
    await desk.step(young)
    assert await hot.in_flight() == []
    chain.mine()
    await bank.follow()
    coins = (await bank.bitcoind.read_coins()).coins[:2]
    joined = await desk.consolidation(
        [(Outpoint(txid=Txid(each.txid), vout=each.vout), each.amount_sat) for each in coins], 1_500
    )
    await desk.step(joined, times=3)
    assert await hot.in_flight() == [("payout_not_booked", await desk.txid(joined), 1_500)]
    await desk.step(joined)
    assert await hot.in_flight() == []
    await bank.follow()
    assert await hot.in_flight() == []


async def test_a_spend_by_hand_of_a_promised_coin_is_found_beside_its_payout(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    made, txid = await desk.booked(alice, 50_000)
    await bank.follow()
    promised = (await desk.story(made)).current.inputs[0].outpoint
    chain.evict(txid)
    chain.call("abandontransaction", txid, wallet=HOT)
    spender, left_sat = by_hand.spend(chain, [(promised.txid, promised.vout)], 20_000)
    planted = [("coin_spent", spender, left_sat)]
    assert await hot.findings() == planted
    await bank.follow()
    assert await hot.findings() == planted
    in_flight = (await hot.compare()).accounts[0].in_flight
    assert [(each.kind, each.ref) for each in in_flight] == [("payout_not_in_chain", txid)]


async def test_a_difference_that_is_planted_beside_a_payout_is_found(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    """A difference in the books of the same amount as the payout that is in flight, and a wrong fee once it is over."""
    made, txid = await desk.sent(alice, 50_000)
    await hot.correct(await desk.takes(made))
    (found,) = (await hot.compare()).findings
    assert (found.kind, found.amount_msat) == ("difference", -1000 * await desk.takes(made))
    await hot.correct(-(await desk.takes(made)), reference="as it was")
    await desk.step(made)
    assert await hot.in_flight() == []
    chain.mine(7)
    await bank.follow()
    await desk.step(made, times=2)
    await hot.correct(100)
    await bank.pool.execute("UPDATE bank.payouts SET fee_booked_sat = fee_booked_sat + 100 WHERE id = $1", made)
    assert await hot.findings() == [("amount_differs", txid, -100)], "booked with another fee than was paid"


async def test_a_payout_to_the_wallets_own_change_is_found(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    """The address was seen on the chain. The books have sent the money away, and the wallet has it."""
    made, txid = await desk.booked(alice, 50_000, to=by_hand.change_address(chain))
    await bank.follow()
    planted = [("amount_differs", txid, -50_000)]
    assert await hot.findings() == planted
    chain.mine(7)
    await bank.follow()
    await desk.step(made, times=2)
    assert await hot.findings() == planted
    await hot.correct(-50_000, reference=txid)
    assert await hot.in_flight() == []


async def test_a_payout_to_an_address_of_nobodys_is_a_deposit_again(
    bank: Depositors, chain: Chain, desk: PayoutDesk, hot: HotReconciliation, alice: Depositor
) -> None:
    await desk.booked(alice, 50_000, to=chain.address())
    await bank.follow()
    assert [kind for kind, _, _ in await hot.in_flight()] == ["deposit"]
    chain.mine(6)
    await bank.follow()
    assert await hot.in_flight() == []
