"""Answers that a real bitcoind gives seldom, or in another version, from a fake one."""

import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import pytest
import pytest_asyncio

from engine.clients.bitcoind import connection as connections
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import InvariantBroken
from tests.helpers.bitcoind_client import opened, reason_of
from tests.helpers.fake_bitcoind import FakeBitcoind, fake_bitcoind

pytestmark = pytest.mark.integration

UNLOADED = (-18, "Requested wallet does not exist or is not loaded")


@pytest.fixture
def fake() -> Iterator[FakeBitcoind]:
    with fake_bitcoind() as node:
        yield node


@pytest_asyncio.fixture
async def rpc(fake: FakeBitcoind) -> AsyncIterator[Rpc]:
    async with opened(fake.url) as client:
        yield client


@pytest.mark.parametrize(
    ("code", "message", "reason"), [(-28, "Loading wallet…", "warming_up"), (-9, "Shutting down", "unreachable")]
)
async def test_a_node_that_comes_or_goes_says_so(
    fake: FakeBitcoind, rpc: Rpc, code: int, message: str, reason: str
) -> None:
    fake.fault("getblockcount", code, message)
    assert await reason_of(rpc.call("getblockcount")) == reason
    assert await reason_of(rpc.call("getblockcount", wallet="hot", repeat=False)) == reason
    assert await reason_of(rpc.batch([("getblockcount", ())] * 2)) == reason


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (-4, "Wallet already loading.", "busy"),
        (-4, "Prune: last wallet synchronisation goes beyond pruned data. You need to -reindex", "pruned"),
        (-4, "Wallet corrupted", "wallet_not_loaded"),
        (-18, "Wallet file verification failed. Data is not in recognized format.", "wallet_not_loaded"),
    ],
)
async def test_a_wallet_that_does_not_load_says_why(
    fake: FakeBitcoind, rpc: Rpc, code: int, message: str, reason: str
) -> None:
    fake.fault("getbalances", *UNLOADED)
    fake.fault("loadwallet", code, message)
    fake.result("listwalletdir", {"wallets": [{"name": "hot"}]})
    assert await reason_of(rpc.call("getbalances", wallet="hot")) == reason
    assert await reason_of(rpc.batch([("getbalances", ())], wallet="hot")) == reason
    assert fake.calls.count("getbalances") == 2


async def test_a_wallet_that_somebody_else_has_loaded_is_used(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.fault("getbalances", *UNLOADED)
    fake.result("getbalances", "balances")
    fake.fault("loadwallet", -35, 'Wallet "hot" is already loaded.')
    assert await rpc.call("getbalances", wallet="hot", repeat=False) == "balances"


async def test_a_batch_that_must_not_be_repeated_is_not_repeated_for_its_rest(fake: FakeBitcoind, rpc: Rpc) -> None:
    """The wallet was unloaded in its midst: its first call has been carried out."""
    fake.result("getnewaddress", "one")
    fake.fault("getnewaddress", *UNLOADED)
    answers = await rpc.batch([("getnewaddress", ())] * 2, wallet="hot", repeat=False)
    assert [getattr(each, "code", each) for each in answers] == ["one", -18]
    assert fake.calls == ["getnewaddress"] * 2


async def test_addresses_are_not_made_twice_over_by_a_repeat(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.result("getnewaddress", "one")
    fake.raw = b"cut off"
    assert await reason_of(Bitcoind(rpc, "hot").make_addresses(3, "bech32")) == "cut_off"
    assert fake.calls == ["getnewaddress"] * 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'{"id": 1}',
        b'{"error": "no"}',
        b'{"error": {"message": "no code"}}',
        b'{"result": NaN, "error": null}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_an_answer_without_meaning_is_cut_off(fake: FakeBitcoind, rpc: Rpc, body: bytes) -> None:
    fake.result("getblockcount", 7)
    fake.raw = body
    assert await reason_of(rpc.call("getblockcount")) == "cut_off"
    assert await reason_of(rpc.batch([("getblockcount", ())])) == "cut_off"
    fake.raw = None
    assert await rpc.call("getblockcount") == 7


@pytest.mark.parametrize("ids", [[], [0], [0, 0], [0, 2], [0, 1, 2], [None, 1]])
async def test_a_batch_with_the_answers_of_another_is_cut_off(fake: FakeBitcoind, rpc: Rpc, ids: list[object]) -> None:
    fake.result("getblockcount", 7)
    fake.raw = json.dumps([{"id": each, "result": 7, "error": None} for each in ids]).encode()
    assert await reason_of(rpc.batch([("getblockcount", ())] * 2)) == "cut_off"


async def test_a_batch_is_sorted_by_its_ids(fake: FakeBitcoind, rpc: Rpc) -> None:
    """Also in the form of JSON-RPC 2.0, without the member that does not apply."""
    fake.result("getblockcount", 0)
    fault = {"jsonrpc": "2.0", "id": 0, "error": {"code": -8, "message": "no"}}
    fake.raw = json.dumps([{"jsonrpc": "2.0", "id": 1, "result": "b"}, fault]).encode()
    first, second = await rpc.batch([("getblockcount", ())] * 2)
    assert (first.code, second) == (-8, "b")


async def test_an_answer_in_chunks_is_read_up_to_the_limit(
    fake: FakeBitcoind, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.result("getblockcount", 7)
    fake.chunked, fake.content_type = True, "application/json; charset=utf-8"
    assert await rpc.call("getblockcount") == 7
    monkeypatch.setattr(connections, "MAX_ANSWER_BYTES", 10)
    assert await reason_of(rpc.call("getblockcount")) == "cut_off"


async def test_an_amount_comes_as_bitcoind_writes_it(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.result("getbalance", 0)
    for text in ("0.00000001", "20999999.97690000"):
        fake.raw = f'{{"result": {text}, "error": null, "id": 0}}'.encode()
        answer = await rpc.call("getbalance")
        assert (type(answer), answer) == (Decimal, Decimal(text))


CHAIN = {
    "chain": "main",
    "blocks": 5,
    "headers": 6,
    "bestblockhash": "aa",
    "chainwork": "00ff",
    "initialblockdownload": True,
    "pruned": True,
    "pruneheight": 3,
}


@pytest.mark.parametrize(
    ("warnings", "told"), [([], ""), (["one", "two"], "one; two"), ("", ""), ("as text", "as text")]
)
async def test_warnings_come_as_a_list_or_as_text(fake: FakeBitcoind, rpc: Rpc, warnings: object, told: str) -> None:
    fake.result("getblockchaininfo", CHAIN | {"warnings": warnings})
    fake.result("getnetworkinfo", {"version": 280_000, "subversion": "/Satoshi:28.0.0/"})
    info = await Bitcoind(rpc, "hot").read_info()
    assert (info.network, info.tip.height, info.headers, info.pruned_below) == ("mainnet", 5, 6, 3)
    assert (info.initial_download, info.warnings) == (True, told)


async def test_a_version_that_always_replaces_does_not_tell(fake: FakeBitcoind, rpc: Rpc) -> None:
    fees = dict.fromkeys(("minrelaytxfee", "mempoolminfee", "incrementalrelayfee"), 0)
    fake.result("getmempoolinfo", {**fees, "size": 1, "bytes": 2, "maxmempool": 3})
    assert (await Bitcoind(rpc, "hot").read_policy()).full_rbf is None


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (-4, "Wallet is currently rescanning. Abort existing rescan or wait.", "busy"),
        (-1, "Can't rescan beyond pruned data. Use RPC call getblockchaininfo to determine your height.", "pruned"),
        (-1, "Failed to rescan unavailable blocks likely due to an in-progress assumeutxo background sync.", "behind"),
        (-1, "Rescan aborted.", "cut_off"),
        (-8, "Invalid start_height", "behind"),
    ],
)
async def test_a_rescan_that_does_not_happen_says_why(
    fake: FakeBitcoind, rpc: Rpc, code: int, message: str, reason: str
) -> None:
    fake.fault("rescanblockchain", code, message)
    assert await reason_of(Bitcoind(rpc, "hot").rescan(5)) == reason


async def test_a_failed_rescan_is_seen(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.fault("rescanblockchain", -1, "Rescan failed. Potentially corrupted data files.")
    with pytest.raises(InvariantBroken, match="corrupted data files"):
        await Bitcoind(rpc, "hot").rescan(5)


async def test_coins_that_never_stand_still_are_busy(fake: FakeBitcoind, rpc: Rpc) -> None:
    """The tip is another one each time."""
    for number in range(20):
        fake.result("getbestblockhash", f"{number:064x}")
    fake.result("listlockunspent", [])
    fake.result("listunspent", [])
    assert await reason_of(Bitcoind(rpc, "hot").read_coins()) == "busy"
    assert fake.calls.count("listunspent") == 5
