"""A regtest chain in the hands of its miner: payments, replacements, reorganisations and evictions, on a real bitcoind.

    sent = chain.pay(address, 50_000)                       # into the mempool
    chain.mine()
    chain.reorg(1, with_=[chain.double_spend(sent)])        # it never happened

Every method returns when the node has done it and its wallets know. All block; from async code use
`asyncio.to_thread`. Amounts are whole satoshi. The stack's Lightning nodes follow a reorganisation within a second.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from infra.local.bitcoin_rpc import HOT, MINER, RpcError
from infra.local.chain.block import Parent, Raw, block, header
from infra.local.chain.payer import Payer, Sent
from infra.local.parts.store import Failed

_EXPIRY_S = 337 * 3600
"""A transaction leaves the mempool after 336 hours."""


class Regtest(Payer):
    """One node with the wallets `miner` and `hot`, the bank's; and that of the payer, which may be the miner's."""

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

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No block is being made, and all are on disk: now bitcoind may be killed.

        LND does not go on when bitcoind has forgotten blocks that LND has seen. A real node gets them from its peers.
        """
        with self._turn:
            yield

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

        The node changes to them when they are the longer chain. Raises `Failed` when it refuses one; it looks
        into the blocks of a side chain only when that becomes the best.
        """
        hashes = []
        for transactions in blocks:
            made, parent = self._build(self._parent(parent), transactions)
            refused = self.call("submitblock", made)
            if refused not in (None, "inconclusive"):
                raise Failed(f"bitcoind refuses a block: {refused}.")
            hashes.append(parent)
        sides = {side["hash"]: side["status"] for side in self.call("getchaintips")}
        if sides.get(parent) == "invalid":
            raise Failed(f"The chain that ends with {parent} is invalid.")
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

        It expires: the clock stands two weeks ahead while the payer pays itself, a transaction that stays in the
        mempool. All others expire with it, and are sent again at once.
        """
        all_entries = self.call("getrawmempool", True)
        gone = {txid, *self.call("getmempooldescendants", txid)}
        stay = sorted(all_entries.keys() - gone, key=lambda each: int(all_entries[each]["ancestorcount"]))
        content, contents = self._hex(txid), [self._hex(each) for each in stay]
        address = self.address(self.payer)
        with self._turn:  # nobody mines meanwhile
            self.call("setmocktime", int(time.time()) + _EXPIRY_S)
            try:
                self.pay(address, 100_000)
            finally:
                self.call("setmocktime", 0)
        for each in contents:
            self.send(each)
        return content

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
