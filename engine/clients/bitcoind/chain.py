"""bitcoind as the engine sees it: the chain, the mempool and one wallet, in whole satoshi.

A call about the wallet first waits in bitcoind until the wallet has seen every block that the node has. So what two
calls say about blocks never goes backwards.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from engine.clients.bitcoind import fault as faults
from engine.clients.bitcoind.answer import (
    Coin,
    CoinCut,
    Listing,
    NewAddress,
    Outpoint,
    Sighting,
    WalletEntry,
    satoshi,
)
from engine.clients.bitcoind.descriptor import ChangeReader
from engine.clients.bitcoind.fault import Reason, RpcFault, unavailable, words
from engine.clients.bitcoind.node import BATCH, Node
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Block, Sight
from engine.domain.errors import EngineError, OutcomeUnknown

_LISTING_S = 120
_WIDENING_S = 600
_RESCAN_S = 24 * 3600
_CUTS, _BETWEEN_CUTS_S = 5, 0.2
_SENT = "send"
_HIGHEST = 9_999_999


class Bitcoind(Node):
    """One node and one wallet of it, by name. Reads may be repeated and raise as those of `Node`."""

    def __init__(self, rpc: Rpc, wallet: str) -> None:
        super().__init__(rpc)
        self._wallet = wallet
        self._change = ChangeReader(rpc, wallet)

    async def list_since(self, block_hash: str) -> Listing:
        """All outputs in blocks after this one and in no block, up to the tip of the wallet; "" lists everything.

        A block on a branch that was left counts from where the branches part. What came in is not listed any more once
        a block holds a conflicting transaction: `look_up` tells. Raises Unavailable (`behind`) when the node does not
        know the block.
        """
        params = (block_hash, 1, None, False, True)  # one confirmation, no `removed`, with change
        try:
            told = await self._rpc.call("listsinceblock", *params, wallet=self._wallet, timeout_s=_LISTING_S)
        except RpcFault as fault:
            if fault.code == faults.NOT_FOUND:
                raise unavailable(Reason.BEHIND, f"bitcoind does not know block {block_hash}.") from None
            raise faults.translation("listsinceblock", fault) from None
        tip = await self.get_header(told["lastblock"])
        if tip is None:
            raise unavailable(Reason.CUT_OFF, "bitcoind does not know the tip of its own wallet.")
        rows: list[Any] = told["transactions"]
        change = await self._change.outpoints(rows)
        return Listing(tip=tip, entries=await asyncio.to_thread(_entries, rows, change))

    async def look_up(self, txids: Iterable[str]) -> dict[str, Sighting]:
        """Where each transaction is now.

        What is in no block is looked for in the mempool; and if it is not there either, in the blocks once more,
        because a block may have taken it meanwhile. What the wallet does not know (`known` is False) is found in a
        block only if the node has a transaction index: without one, GONE proves nothing.
        """
        found = await self._sights(list(dict.fromkeys(txids)))
        in_no_block = [txid for txid, sight in found.items() if sight.kind is Sight.MEMPOOL]
        entries = await self._each("getmempoolentry", [(txid,) for txid in in_no_block], none_for=faults.NOT_FOUND)
        missing = [txid for txid, entry in zip(in_no_block, entries, strict=True) if entry is None]
        for txid, sight in (await self._sights(missing)).items():
            gone = Sighting(kind=Sight.GONE, known=sight.known)
            found[txid] = gone if sight.kind is Sight.MEMPOOL else sight
        unseen = [txid for txid, sight in found.items() if sight.kind is Sight.GONE and not sight.known]
        return found | await self._indexed(unseen)

    async def read_spends(self, txids: Iterable[str]) -> dict[str, list[Outpoint]]:
        """The outputs that each of these transactions spends. One that the wallet does not know is absent."""
        asked = list(dict.fromkeys(txids))
        params = [(txid, None, True) for txid in asked]
        answers = await self._each("gettransaction", params, none_for=faults.NOT_FOUND, wallet=self._wallet)
        return {
            txid: [(coin["txid"], coin["vout"]) for coin in answer["decoded"]["vin"] if "txid" in coin]
            for txid, answer in zip(asked, answers, strict=True)
            if answer is not None
        }

    async def read_coins(self) -> CoinCut:
        """All unspent outputs, locked ones included, while neither the tip nor a lock changed.

        Raises Unavailable (`busy`) when one of them changes again and again.
        """
        for attempt in range(_CUTS):
            await asyncio.sleep(_BETWEEN_CUTS_S if attempt else 0)
            best, locks, unspent, locks_after = await self._mixed(
                [
                    ("getbestblockhash", ()),
                    ("listlockunspent", ()),
                    ("listunspent", (0, _HIGHEST, [], True)),
                    ("listlockunspent", ()),
                ],
                wallet=self._wallet,
            )
            hidden = await self._locked_coins([(each["txid"], each["vout"]) for each in locks])
            if locks == locks_after and best == await self._call("getbestblockhash"):
                tip = await self.get_header(best)
                if tip is not None:
                    return CoinCut(tip=tip, coins=(*map(_coin, unspent), *hidden))
        raise unavailable(Reason.BUSY, "The chain or the locks changed each time while the coins were read.")

    async def make_addresses(self, count: int, address_type: str) -> list[NewAddress]:
        """Take so many new addresses from the wallet, in the order of their index. Each call takes others.

        Raises Unavailable; addresses taken until then are lost to the caller, and the wallet still watches them.
        """
        made: list[NewAddress] = []
        for start in range(0, count, BATCH):
            calls = [("", address_type)] * min(BATCH, count - start)
            try:
                taken = await self._each("getnewaddress", calls, wallet=self._wallet, repeat=False)
            except OutcomeUnknown as error:
                raise unavailable(Reason.CUT_OFF, error.detail) from None
            known = await self._each("getaddressinfo", [(address,) for address in taken], wallet=self._wallet)
            made += [
                NewAddress(address=each["address"], hd_index=int(each["hdkeypath"].rpartition("/")[2]))
                for each in known
            ]
        return made

    async def knows(self, addresses: Iterable[str]) -> dict[str, bool]:
        """Whether the wallet can spend what each address receives. What is no address is False."""
        asked = list(dict.fromkeys(addresses))
        params = [(address,) for address in asked]
        answers = await self._each("getaddressinfo", params, none_for=faults.NOT_FOUND, wallet=self._wallet)
        return {address: bool(told and told["ismine"]) for address, told in zip(asked, answers, strict=True)}

    async def widen(self, size: int) -> None:
        """Watch so many addresses of each descriptor beyond the last one that was used. A repeat does nothing."""
        await self._call("keypoolrefill", size, wallet=self._wallet, timeout_s=_WIDENING_S)

    async def rescan(self, from_height: int) -> None:
        """Have the wallet read all blocks from this height again: hours on a long chain. It may be repeated.

        Raises Unavailable: `busy` while a rescan runs, also one whose caller is gone; `pruned` when the blocks are
        gone; `behind` when the node has not got that far; `cut_off` when it was stopped.
        """
        try:
            await self._rpc.call(
                "rescanblockchain", from_height, wallet=self._wallet, timeout_s=_RESCAN_S, repeat=False
            )
        except OutcomeUnknown as error:
            raise unavailable(Reason.CUT_OFF, error.detail) from None
        except RpcFault as fault:
            raise _why_not_rescanned(fault, from_height) from None

    async def _sights(self, txids: Sequence[str]) -> dict[str, Sighting]:
        """By the wallet alone; MEMPOOL stands for whatever is in no block."""
        params = [(txid,) for txid in txids]
        answers = await self._each("gettransaction", params, none_for=faults.NOT_FOUND, wallet=self._wallet)
        return {txid: _sight(answer) for txid, answer in zip(txids, answers, strict=True)}

    async def _indexed(self, txids: Sequence[str]) -> dict[str, Sighting]:
        """Those of these transactions that the node's index finds in the active chain."""
        answers = await self._each("getrawtransaction", [(txid, 1) for txid in txids], none_for=faults.NOT_FOUND)
        hashes = {
            txid: answer["blockhash"]
            for txid, answer in zip(txids, answers, strict=True)
            if answer is not None and answer.get("confirmations", 0) > 0
        }
        headers = await self._each("getblockheader", [(found,) for found in hashes.values()])
        return {
            txid: Sighting(kind=Sight.MINED, block=Block(height=header["height"], hash=header["hash"]), known=False)
            for txid, header in zip(hashes, headers, strict=True)
        }

    async def _locked_coins(self, locked: Sequence[Outpoint]) -> list[Coin]:
        outputs = await self._each("gettxout", [(txid, vout, True) for txid, vout in locked])
        unspent = [(point, output) for point, output in zip(locked, outputs, strict=True) if output is not None]
        owned = await self.knows([output["scriptPubKey"].get("address", "") for _, output in unspent])
        params = [(txid,) for (txid, _), _ in unspent]
        known = await self._each("gettransaction", params, none_for=faults.NOT_FOUND, wallet=self._wallet)
        return [
            Coin(
                txid=txid,
                vout=vout,
                amount_sat=satoshi(output["value"]),
                address=output["scriptPubKey"].get("address"),
                confirmations=output["confirmations"],
                safe=output["confirmations"] > 0 or bool(own and own.get("trusted")),
                locked=True,
            )
            for ((txid, vout), output), own in zip(unspent, known, strict=True)
            if owned[output["scriptPubKey"].get("address", "")]
        ]


def _why_not_rescanned(fault: RpcFault, from_height: int) -> EngineError:
    said = words(fault.message)
    if fault.code == faults.INVALID_PARAMETER:
        return unavailable(Reason.BEHIND, f"bitcoind has no block at height {from_height}.")
    if fault.code == faults.MISC and "aborted" in said:
        return unavailable(Reason.CUT_OFF, "The rescan was stopped before its end.")
    if fault.code == faults.MISC and "pruned" in said:
        return unavailable(Reason.PRUNED, f"bitcoind cannot rescan from {from_height}: {said}")
    if fault.code == faults.MISC and "assumeutxo" in said:
        return unavailable(Reason.BEHIND, f"bitcoind cannot rescan from {from_height}: {said}")
    return faults.translation("rescanblockchain", fault)


def _entries(rows: Sequence[Any], change: frozenset[Outpoint]) -> tuple[WalletEntry, ...]:
    """The listing, each entry once. Thousands take a tenth of a second, so payments must not wait for it."""
    entries = {(each.txid, each.vout, each.incoming): each for each in (_entry(row, change) for row in rows)}
    return tuple(entries.values())


def _entry(row: Any, change: frozenset[Outpoint]) -> WalletEntry:  # noqa: ANN401 - JSON
    point = (row["txid"], row["vout"])
    return WalletEntry(
        txid=row["txid"],
        vout=row["vout"],
        address=row.get("address"),
        amount_sat=abs(satoshi(row["amount"])),
        incoming=row["category"] != _SENT,
        change=point in change,
        coinbase=row.get("generated", False),
        confirmations=row["confirmations"],
        block=_block(row),
        conflicts=tuple(dict.fromkeys([*row["walletconflicts"], *row.get("mempoolconflicts", ())])),
    )


def _sight(told: Any | None) -> Sighting:  # noqa: ANN401 - JSON
    if told is None:
        return Sighting(kind=Sight.MEMPOOL, known=False)
    if told["confirmations"] < 0:
        return Sighting(kind=Sight.GONE)
    block = _block(told)
    return Sighting(kind=Sight.MEMPOOL if block is None else Sight.MINED, block=block)


def _block(told: Any) -> Block | None:  # noqa: ANN401 - JSON
    """`blockhash` is told of confirmed transactions only."""
    return Block(height=told["blockheight"], hash=told["blockhash"]) if told["confirmations"] > 0 else None


def _coin(told: Any) -> Coin:  # noqa: ANN401 - JSON
    return Coin(
        txid=told["txid"],
        vout=told["vout"],
        amount_sat=satoshi(told["amount"]),
        address=told.get("address"),
        confirmations=told["confirmations"],
        safe=told["safe"],
    )
