"""A laboratory of chains: payments, replacements, reorganisations and accidents on a real bitcoind.

    sent = chain.pay(address, 50_000)                       # from `stranger`, into the mempool
    chain.mine()
    chain.reorg(1, with_=[chain.double_spend(sent)])        # it never happened

Every method returns when the node has done it and its wallets know. All block; from async code use
`asyncio.to_thread`. Amounts are whole satoshi.
"""

import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.local.bitcoin_rpc import HOT, MINER, RpcError
from infra.local.network import FIRST_BLOCKS
from tests.fixtures.chain_line import ChainLine
from tests.fixtures.chain_node import ChainNode
from tests.helpers.chain_block import Parent, Raw, block, header
from tests.helpers.chain_payer import STRANGER, Payer, Sent, satoshi

_KEYS = {
    MINER: "d7Fsv72q9KPQsV4N9tVgq8nErnBMBVZT3YVa41XLaZG7dNLAHEKVe1Rdw6CffqFe5XaABEHB9Ce2bUvi8f5E4Ff18na9MDX",
    STRANGER: "daqW5dCXJtA5NBSpYzXQHRs8m6pRMSKk4fftvQqxAKV81JGRPnae8YctSZxzXeX5Be94iXZKba51Q8wYsLLEq5HKzxopJ57",
}
"""Of wallets with one descriptor each, which are made in a tenth of an ordinary wallet's time."""
_COINBASES = 20
"""So many of the first blocks pay `stranger`."""
_COINS, _DEPTH = 200, 13
"""`stranger` splits them into so many coins, so deep that a reorganisation of twelve blocks does not reach them."""
_EXPIRY_S = 337 * 3600
"""A transaction leaves the mempool after 336 hours."""


class Chain(Payer):
    """One node with the wallets `miner`, `hot` (the bank's, made as in production) and `stranger` (who pays)."""

    def __init__(self, node: ChainNode) -> None:
        super().__init__(node)
        self.line = ChainLine(node.url)
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

    def height(self) -> int:
        """Of the best chain."""
        return int(self.call("getblockcount"))

    def tip(self) -> str:
        """The hash of the best chain's last block."""
        return str(self.call("getbestblockhash"))

    def address(self, wallet: str = HOT) -> str:
        """A new one of this wallet, bech32."""
        return super().address(wallet)

    def mempool(self) -> list[str]:
        """The txids in it."""
        return list(self.call("getrawmempool"))

    def mine(self, blocks: int = 1, *, txs: Sequence[str] | None = None, flush: bool = True) -> list[str]:
        """Mine what the mempool holds, or one block with exactly these transactions (hex, or txid of the mempool).

        Relay policy does not matter for given transactions. Blocks are on disk afterwards; those without `flush` are
        lost by `kill`. Returns the hashes.
        """
        address = self.address(MINER)
        with self._turn:
            if txs is None:
                hashes = list(self.call("generatetoaddress", blocks, address))
            else:
                hashes = [str(self.call("generateblock", address, list(txs))["hash"])]
        self._settle(flush=flush)
        return hashes

    def coinbase_to(self, address: str) -> str:
        """Mine a block whose reward goes there; returns the coinbase's txid. Its output 0 is the reward."""
        (found,) = self.call("generatetoaddress", 1, address)
        self._settle()
        return str(self.call("getblock", found)["tx"][0])

    @contextmanager
    def mining(self, pause_s: float = 0.1) -> Iterator[None]:
        """Blocks come one by one for the length of the block, also before and after the node was away."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(pause_s):
                with suppress(OSError, RpcError):
                    self.mine()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join()

    def bare_multisig(self, address: str, amount_sat: int, *, also_sat: int = 0) -> Sent:
        """Mine a payment to a bare 1-of-2 multisig with this address's key, and in output 1 perhaps to the address."""
        sent = self.multisig(address, amount_sat, also_sat)
        self.mine(txs=[sent.hex])
        return sent

    def reorg(self, depth: int, *, without: Iterable[str] = (), with_: Iterable[str] = (), extra: int = 1) -> list[str]:
        """Replace the last `depth` blocks by a competing chain of `depth + extra`; returns its hashes.

        It has these transactions (hex) in its first block, and the old ones at their heights: but `without` these
        txids, what conflicts with the new ones, and what descends from either. As on the network, the node changes
        chains at once, and nobody sees a height in between. What is left out returns to the mempool, unless it
        conflicts. What the mempool holds stays there.
        """
        fork = str(self.call("getblockhash", self.height() - depth))
        new = list(with_)
        taken = {_outpoint(spent) for each in new for spent in self.call("decoderawtransaction", each)["vin"]}
        left_out, chosen = set(without), list[list[str]]()
        for height in range(self.height() - depth + 1, self.height() + 1):
            coinbase, *transactions = self.call("getblock", self.call("getblockhash", height), 2)["tx"]
            left_out.add(coinbase["txid"])
            chosen.append([])
            for each in transactions:
                gone = (spent["txid"] in left_out or _outpoint(spent) in taken for spent in each["vin"])
                if each["txid"] in left_out or any(gone):
                    left_out.add(each["txid"])
                else:
                    chosen[-1].append(each["hex"])
        chosen += [[] for _ in range(extra)]
        chosen[0] += new
        return self.extend(fork, chosen)

    def come_back(self, tip: str) -> list[str]:
        """Make an orphaned block the best chain's again, under as many empty blocks as that takes; returns those."""
        behind = self.height() - int(self.call("getblockheader", tip)["height"])
        return self.extend(tip, [[]] * (behind + 1))

    def extend(self, parent: str, blocks: Sequence[Sequence[str]]) -> list[str]:
        """Build blocks with these transactions (hex) on any block; returns their hashes.

        The node changes to them when they are the longer chain. Raises `AssertionError` when it refuses one; it looks
        into the blocks of a side chain only when that becomes the best.
        """
        hashes = []
        for transactions in blocks:
            made, parent = self._build(self._parent(parent), transactions)
            refused = self.call("submitblock", made)
            assert refused in (None, "inconclusive"), refused
            hashes.append(parent)
        sides = {side["hash"]: side["status"] for side in self.call("getchaintips")}
        assert sides.get(parent) != "invalid", f"the chain that ends with {parent} is invalid"
        self._settle()
        return hashes

    def headers_ahead(self, blocks: int = 3) -> list[str]:
        """Tell the node the headers of blocks that it cannot get; returns the blocks in hex, for `submitblock`."""
        parent, made = self._parent(self.tip()), []
        for _ in range(blocks):
            content, found = self._build(parent, [])
            self.call("submitheader", header(content))
            parent = self._parent(found)
            made.append(content)
        return made

    def invalidate(self, found: str) -> None:
        """Have the node hold this block and all above it for invalid, as an operator can.

        Unlike in a reorganisation, every height on the way is seen, and of more than ten blocks only the last ten's
        transactions return to the mempool.
        """
        self.call("invalidateblock", found)
        self._settle()

    def reconsider(self, found: str) -> None:
        """Take that back. Of two chains of equal work the node stays with the one that it has."""
        self.call("reconsiderblock", found)
        self._settle()

    def evict(self, txid: str) -> str:
        """Have a transaction and its descendants leave the mempool without a conflict; returns it in hex.

        It expires: the clock stands two weeks ahead while `stranger` pays itself, a transaction that stays in the
        mempool. All others expire with it, and are sent again at once.
        """
        all_entries = self.call("getrawmempool", True)
        gone = {txid, *self.call("getmempooldescendants", txid)}
        stay = sorted(all_entries.keys() - gone, key=lambda each: int(all_entries[each]["ancestorcount"]))
        content, contents = self._hex(txid), [self._hex(each) for each in stay]
        address = self.address(STRANGER)
        with self._turn:  # nobody mines meanwhile
            self.call("setmocktime", int(time.time()) + _EXPIRY_S)
            try:
                self.pay(address, 100_000)
            finally:
                self.call("setmocktime", 0)
        for each in contents:
            self.send(each)
        return content

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

    def restore_wallet(self, name: str, copy: Path) -> None:
        """Put an older copy in the place of a wallet, while the node is stopped; it runs again afterwards."""
        self.stop()
        file = self.node.wallet_file(name)
        for each in file.parent.iterdir():
            each.unlink()
        shutil.copy(copy, file)
        self.start()

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
        while self.mempool():
            self.mine()

    def close(self) -> None:
        """End the line and the node."""
        self.line.close()
        self.node.close()

    def _settle(self, *, flush: bool = True) -> None:
        self.sync()
        if flush:
            self.rpc().flush()

    def _hex(self, txid: str) -> str:
        return str(self.call("getrawtransaction", txid))

    def _parent(self, found: str) -> Parent:
        head = self.call("getblockheader", found)
        return Parent(found, int(head["height"]), int(head["mediantime"]))

    def _build(self, parent: Parent, transactions: Iterable[str]) -> tuple[str, str]:
        decoded = [(each, self.call("decoderawtransaction", each)) for each in transactions]
        raw = [Raw(about["txid"], about["hash"], content) for content, about in decoded]
        return block(parent, int(time.time()), self.script(self.address(MINER)), raw)


def _outpoint(spent: Mapping[str, Any]) -> str:
    return f"{spent['txid']}:{spent['vout']}"
