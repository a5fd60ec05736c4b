"""What the client of bitcoind makes of answers, faults and URLs, without a node."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from engine.clients.bitcoind.answer import ChainInfo, satoshi
from engine.clients.bitcoind.credential import Address, Credential
from engine.clients.bitcoind.fault import RpcFault, translation
from engine.clients.bitcoind.health import explain
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Block
from engine.domain.errors import EngineError, InvariantBroken, Unavailable
from tests.helpers.bitcoind_client import reason_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("told", "amount_sat"),
    [
        ("0.00000001", 1),
        ("-0.00000001", -1),
        ("20999999.97690000", 2_099_999_997_690_000),
        ("20999999.97690001", 2_099_999_997_690_001),
        ("0.10000000", 10_000_000),
        ("0", 0),
        ("3", 300_000_000),
        ("1e-8", 1),
        ("1E+1", 1_000_000_000),
    ],
)
def test_an_amount_is_exact(told: str, amount_sat: int) -> None:
    assert satoshi(json.loads(told, parse_float=Decimal)) == amount_sat


@pytest.mark.parametrize("told", [Decimal("0.000000001"), Decimal("NaN"), Decimal("Infinity"), 0.1, True, None, "1"])
def test_an_amount_that_is_not_whole_satoshi_is_refused(told: object) -> None:
    with pytest.raises(InvariantBroken):
        satoshi(told)


@pytest.mark.parametrize(
    ("code", "message", "kind", "reason"),
    [
        (-4, "Wallet is currently rescanning. Abort existing rescan or wait.", Unavailable, "busy"),
        (-4, "Wallet file verification failed. Wallet already loading.", Unavailable, "busy"),
        (-18, "Requested wallet does not exist or is not loaded", Unavailable, "wallet_not_loaded"),
        (-4, "Insufficient funds", InvariantBroken, None),
        (-32601, "Method not found", InvariantBroken, None),
    ],
)
def test_a_fault_is_translated(code: int, message: str, kind: type[EngineError], reason: str | None) -> None:
    error = translation("any", RpcFault(code, message))
    assert type(error) is kind
    assert error.fields.get("reason") == reason
    assert message in error.detail


def test_unforeseen_words_are_bounded_and_on_one_line() -> None:
    error = translation("any", RpcFault(-1, "first\nsecond\x1b[2J " + "é" * 10_000))
    assert error.fields["rpc_code"] == -1
    assert "first second" in error.detail
    assert "\x1b" not in error.detail
    assert len(error.detail.encode()) < 500


INFO = ChainInfo(
    network="mainnet",
    tip=Block(height=900_000, hash="00" * 32),
    headers=900_000,
    work=f"{1000:064x}",
    initial_download=False,
    pruned_below=None,
    version=290_403,
    subversion="/Satoshi:29.4.3/",
    warnings="",
)


def changed(**fields: object) -> ChainInfo:
    known = {name: getattr(INFO, name) for name in ChainInfo.__dataclass_fields__}
    return ChainInfo(**{**known, **fields})


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (INFO, None),
        (changed(network="testnet"), "other_network"),
        (changed(network="testnet4"), "other_network"),
        (changed(version=270_200), "too_old"),
        (changed(version=280_000), None),
        (changed(pruned_below=800_001), "pruned"),
        (changed(pruned_below=800_000), None),
        (changed(initial_download=True), "behind"),
        (changed(headers=900_006), None),
        (changed(headers=900_007), "behind"),
        (changed(work=f"{999:064x}"), "behind"),
        (changed(work=f"{1001:064x}"), None),
        (changed(network="regtest", version=1, initial_download=True), "other_network"),
    ],
)
def test_a_node_that_cannot_be_followed_says_why(info: ChainInfo, reason: str | None) -> None:
    hindrance = explain(info, network="mainnet", needed_from_height=800_000, known_work=f"{1000:064x}")
    assert (None if hindrance is None else hindrance.reason.value) == reason
    if hindrance is not None:
        assert hindrance.error().fields["reason"] == reason
        assert hindrance.sentence.endswith(".")


def test_a_pruned_node_without_needs_is_followed() -> None:
    assert explain(changed(pruned_below=899_000), network="mainnet") is None


@pytest.mark.parametrize(
    ("url", "credential"),
    [
        ("http://127.0.0.1:8332", None),
        ("http://me:secret@127.0.0.1:8332", "me:secret"),
        ("http://m%40e:p%2Fs%3As%25@127.0.0.1:8332", "m@e:p/s:s%"),
        ("http://me:@127.0.0.1", "me:"),
        ("https://me:secret@[::1]:8332/", "me:secret"),
    ],
)
def test_the_credentials_of_a_url_are_decoded(url: str, credential: str | None) -> None:
    assert Address(url).credential == credential
    assert Address(url).port == 8332


@pytest.mark.parametrize(
    "url", ["http://me:top/secret@127.0.0.1", "me:secret@127.0.0.1:8332", "ftp://me:secret@host", "http://", "secret"]
)
def test_a_wrong_url_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="bitcoind's URL") as raised:
        Rpc(url)
    assert "top" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_file_comes_before_the_url(tmp_path: Path) -> None:
    file = tmp_path / ".cookie"
    credential = Credential(Address("http://me:secret@127.0.0.1"), file)
    in_url = credential.authorization()
    assert not credential.has_changed(in_url)
    file.write_text("__cookie__:one\n")
    assert credential.has_changed(in_url)
    assert credential.authorization() != in_url


async def test_a_missing_cookie_means_that_bitcoind_does_not_run(tmp_path: Path) -> None:
    rpc = Rpc("http://127.0.0.1:1", tmp_path / ".cookie")
    assert await reason_of(rpc.call("getblockcount")) == "unreachable"
    await rpc.close()


async def test_a_file_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    rpc = Rpc("http://127.0.0.1:1", tmp_path)
    assert await reason_of(rpc.call("getblockcount")) == "refused"
    await rpc.close()


async def test_nobody_listening_is_unreachable() -> None:
    rpc = Rpc("http://me:secret@127.0.0.1:1")
    assert await reason_of(rpc.call("getblockcount")) == "unreachable"
    assert await reason_of(rpc.call("sendtoaddress", repeat=False)) == "unreachable"
    assert await reason_of(rpc.batch([("getblockcount", ())])) == "unreachable"
    assert await rpc.batch([]) == []
    await rpc.close()


async def test_a_parameter_that_would_become_a_float_is_a_mistake_of_ours() -> None:
    rpc = Rpc("http://me:secret@127.0.0.1:1")
    with pytest.raises(TypeError):
        await rpc.call("sendtoaddress", "address", Decimal("0.1"))
    with pytest.raises(TypeError):
        await rpc.batch([("sendtoaddress", ("address", Decimal("0.1")))])
    await rpc.close()
