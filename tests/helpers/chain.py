"""A laboratory of chains: all that happens to a chain, to the node that has it, to its wallets and to the line there.

    sent = chain.pay(address, 50_000)                       # from `stranger`, into the mempool
    chain.mine()
    chain.reorg(1, with_=[chain.double_spend(sent)])        # it never happened
    chain.kill()
    chain.start()

Every method returns when the node has done it and its wallets know. All block; from async code use
`asyncio.to_thread`. Amounts are whole satoshi. What happens to the chain itself stands in infra/local/chain/regtest.py.
"""

import shutil
import time
from pathlib import Path

from infra.local.bitcoin_rpc import HOT, MINER
from infra.local.chain.payer import satoshi
from infra.local.chain.regtest import Regtest
from infra.local.network import FIRST_BLOCKS
from tests.fixtures.chain_line import ChainLine
from tests.fixtures.chain_node import ChainNode

STRANGER = "stranger"
_KEYS = {
    MINER: "d7Fsv72q9KPQsV4N9tVgq8nErnBMBVZT3YVa41XLaZG7dNLAHEKVe1Rdw6CffqFe5XaABEHB9Ce2bUvi8f5E4Ff18na9MDX",
    STRANGER: "daqW5dCXJtA5NBSpYzXQHRs8m6pRMSKk4fftvQqxAKV81JGRPnae8YctSZxzXeX5Be94iXZKba51Q8wYsLLEq5HKzxopJ57",
}
"""Of wallets with one descriptor each, which are made in a tenth of an ordinary wallet's time."""
_COINBASES = 20
"""So many of the first blocks pay `stranger`."""
_COINS, _DEPTH = 200, 13
"""`stranger` splits them into so many coins, so deep that a reorganisation of twelve blocks does not reach them."""


class Chain(Regtest):
    """One node with the wallets `miner`, `hot` (the bank's, made as in production) and `stranger` (who pays)."""

    def __init__(self, node: ChainNode) -> None:
        super().__init__(node.rpc, STRANGER)
        self.node, self.line = node, ChainLine(node.url)
        self._own_data: Path | None = None

    @property
    def url(self) -> str:
        """bitcoind's RPC, without credentials."""
        return self.node.url

    @property
    def auth_file(self) -> Path:
        """`user:password`."""
        return self.node.auth_file

    @property
    def zmq(self) -> str:
        """Where bitcoind publishes `hashblock`, `hashtx` and `sequence`."""
        return self.node.zmq

    def start(self, *flags: str) -> None:
        """Start the node, with further flags for this life; returns when it serves. One that runs is left alone."""
        self.node.start(*flags)
        self.sync()

    def stop(self) -> None:
        """Stop the node in good order: mempool and blocks are kept."""
        self.node.stop()

    def kill(self) -> None:
        """SIGKILL. What the mempool held is lost, and so are blocks that were mined without `flush`."""
        self.node.kill()

    def restart(self, *flags: str) -> None:
        """Stop it in good order and start it, with further flags for this life."""
        self.stop()
        self.start(*flags)

    def copy_wallet(self, name: str = HOT) -> Path:
        """A copy of a wallet as it is now, for `restore_wallet`."""
        copy = self.node.folder / f"{name}-{time.time_ns()}.dat"
        self.call("backupwallet", str(copy), wallet=name)
        return copy

    def restore_wallet(self, name: str, copy: Path, *flags: str) -> None:
        """Put an older copy in the place of a wallet, while the node is stopped. It runs again, with these flags."""
        self.stop()
        file = self.node.wallet_file(name)
        for each in file.parent.iterdir():
            each.unlink()
        shutil.copy(copy, file)
        self.start(*flags)

    def other_chain(self, *flags: str) -> None:
        """Replace the node by one of the same network with other blocks and fresh wallets, at the same address.

        With `-prune=1 -txindex=0 -fastprune` it can be pruned: `pruneblockchain` keeps at least 288 blocks.
        """
        self.stop()
        assert self._own_data is None
        self._own_data = self.node.data.rename(self.node.folder / "own-data")
        self.start(*flags)
        self.prepare()

    def own_chain(self) -> None:
        """Take that back."""
        if self._own_data is not None:
            self.node.kill()
            shutil.rmtree(self.node.data)
            self._own_data.rename(self.node.data)
            self._own_data = None
            self.start()

    def prepare(self) -> None:
        """Wallets, the first blocks and the coins of `stranger`, on a fresh node."""
        self.rpc().have_wallet(HOT)
        for name, key in _KEYS.items():
            self.call("createwallet", name, False, True, "", False, True, True)
            descriptor = f"wpkh(tprv8ZgxMBicQKsP{key}/0/*)"
            checksum = self.call("getdescriptorinfo", descriptor)["checksum"]
            asked = {"desc": f"{descriptor}#{checksum}", "active": True, "timestamp": "now", "range": [0, 99]}
            (said,) = self.call("importdescriptors", [asked], wallet=name)
            assert said["success"], said
        address = self.address(STRANGER)
        self.call("generatetoaddress", _COINBASES, address)
        self.mine(FIRST_BLOCKS - _COINBASES)
        self.sync()
        coins = [each for each in self.call("listunspent", wallet=STRANGER) if each["confirmations"] > 100]
        each_sat = sum(satoshi(coin["amount"]) for coin in coins) // (_COINS + 1)
        self.pay_many([(address, each_sat)] * _COINS)
        self.mine(_DEPTH)

    def repair(self) -> None:
        """Whatever a test did: the node runs on its own chain, with the right time, nothing in the mempool."""
        self.line.reset()
        self.own_chain()
        if self.node.flags:
            self.stop()
        self.start()
        for wallet in (MINER, HOT, STRANGER):
            self.rpc().have_wallet(wallet)
        self.call("setmocktime", 0)
        if waiting := self.mempool():
            self.mine(txs=waiting)

    def close(self) -> None:
        """End the line and the node."""
        self.line.close()
        self.node.close()
