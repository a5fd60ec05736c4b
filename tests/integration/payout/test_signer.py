"""The wallet as a signer: it signs what it knows, says why it cannot, and never signs a part."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.clients.bitcoind.fault import UNFORESEEN
from engine.clients.bitcoind.signer import INCOMPLETE, WalletSigner
from engine.domain.deposit import Outpoint
from engine.domain.errors import InvariantBroken
from engine.domain.ids import Txid
from engine.domain.withdrawal.transaction import parse_transaction_hex
from tests.helpers.bitcoind_client import opened, reason_of
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.fake_bitcoind import fake_bitcoind
from tests.helpers.payout.spender import Spender, spender_of

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def spender(chain: Chain) -> AsyncIterator[Spender]:
    async with spender_of(chain) as client:
        yield client


def wallet(chain: Chain, name: str, *, passphrase: str = "") -> None:
    """A wallet of its own for a test, which is unloaded when the module's node goes."""
    chain.call("createwallet", name, False, False, passphrase)


async def test_a_repeat_gives_the_same_transaction(chain: Chain, spender: Spender) -> None:
    psbt = await spender.draft(spender.coins([100_000, 50_000]), [(spender.stranger, 149_000)])
    one, two = await spender.signer.sign(psbt), await spender.signer.sign(psbt)
    assert one == two
    assert one.txid == chain.call("decoderawtransaction", one.raw)["txid"]
    assert parse_transaction_hex(one.raw).signed


async def test_a_taproot_coin_is_signed_by_its_key(chain: Chain, spender: Spender) -> None:
    sent = chain.pay(chain.call("getnewaddress", "", "bech32m", wallet="hot"), 100_000)
    chain.mine()
    signed = await spender.to_stranger([Outpoint(txid=Txid(sent.txid), vout=sent.vout)], 99_000)
    (spent,) = parse_transaction_hex(signed.raw).inputs
    assert [len(each) for each in spent.witness] == [64]
    assert (await spender.spending.broadcast(signed.raw)).is_known


async def test_a_locked_wallet_says_so_and_signs_after_it_is_unlocked(chain: Chain) -> None:
    wallet(chain, "encrypted", passphrase="a passphrase")
    async with spender_of(chain, "encrypted") as spender:
        psbt = await spender.draft([spender.coin(100_000)], [(spender.stranger, 99_000)])
        assert await reason_of(spender.signer.sign(psbt)) == "wallet_locked"
        chain.call("walletpassphrase", "a passphrase", 60, wallet="encrypted")
        assert (await spender.spending.test((await spender.signer.sign(psbt)).raw)).is_known


async def test_a_wallet_that_is_not_loaded_is_loaded_again(chain: Chain, spender: Spender) -> None:
    psbt = await spender.draft([spender.coin(100_000)], [(spender.stranger, 99_000)])
    chain.call("unloadwallet", "hot")
    assert (await spender.spending.test((await spender.signer.sign(psbt)).raw)).is_known
    assert "hot" in chain.call("listwallets")


async def test_a_wallet_that_does_not_exist_is_missing(spender: Spender) -> None:
    psbt = await spender.draft([spender.coin(100_000)], [(spender.stranger, 99_000)])
    assert await reason_of(WalletSigner(spender.rpc, "nosuch").sign(psbt)) == "wallet_missing"


async def test_a_key_that_is_lacking_names_the_coin(chain: Chain, spender: Spender) -> None:
    """The coin of another wallet: its transaction is known, because it pays both."""
    addresses = (chain.address(), chain.address(STRANGER))
    sent = chain.pay_many([(address, 100_000) for address in addresses])
    chain.mine()
    ours, theirs = [Outpoint(txid=Txid(each.txid), vout=each.vout) for each in sent]
    psbt = await spender.draft([ours, theirs], [(spender.stranger, 199_000)])
    with pytest.raises(InvariantBroken) as raised:
        await spender.signer.sign(psbt)
    assert raised.value.code == INCOMPLETE
    assert str(theirs) in raised.value.detail
    assert "1 of 2 inputs" in raised.value.detail
    assert str(ours) not in raised.value.detail


async def test_a_wallet_without_private_keys_signs_nothing(chain: Chain, spender: Spender) -> None:
    psbt = await spender.draft([spender.coin(100_000)], [(spender.stranger, 99_000)])
    chain.call("createwallet", "watching", True)
    with pytest.raises(InvariantBroken) as raised:
        await WalletSigner(spender.rpc, "watching").sign(psbt)
    assert raised.value.code == INCOMPLETE


@pytest.mark.parametrize("psbt", ["", "cHNidP8=", "no psbt \u0000 \u202e"])
async def test_a_text_that_is_no_psbt_is_not_signed(spender: Spender, psbt: str) -> None:
    with pytest.raises(InvariantBroken):
        await spender.signer.sign(psbt)


async def test_a_signer_that_returns_something_else_than_a_transaction_is_seen() -> None:
    with fake_bitcoind() as fake:
        fake.result("walletprocesspsbt", {"complete": True, "psbt": "x", "hex": "0200zz\u0000"})
        async with opened(fake.url) as rpc:
            with pytest.raises(InvariantBroken) as raised:
                await WalletSigner(rpc, "hot").sign("x")
            assert raised.value.code == UNFORESEEN
