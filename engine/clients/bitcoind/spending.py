"""How money leaves by one wallet of bitcoind: drafts, broadcasts, and what became of them.

    draft       `change_address`, `create_psbt`              the coins and the outputs are the caller's choice
    broadcast   `test`, `broadcast`                          stored bytes, as often as one likes
    watch       `transaction`, `mempool_entry`, `unspent`    by the wallet and by the node
    coins       `frozen`, `lock`, `unlock`                   the node's locks are a second line: the rows reserve
    origins     `walk_ancestors`                             what the wallet's own transactions have joined

Every call may be repeated. Each raises Unavailable with a `reason` of `fault.Reason`; signing is a `Signer`'s.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from engine.clients.bitcoind import fault as faults
from engine.clients.bitcoind.answer import satoshi
from engine.clients.bitcoind.fault import UNFORESEEN, Reason, RpcFault, translation, unavailable
from engine.clients.bitcoind.node import Node
from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.spending_answer import MempoolEntry, WalletTransaction
from engine.clients.bitcoind.verdict import Fate, Verdict, by_fault, by_words
from engine.domain.deposit import Block, Outpoint
from engine.domain.errors import InvariantBroken
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.transaction import REPLACEABLE, parse_transaction_hex, unsigned_transaction

AddressType = Literal["bech32", "bech32m"]
MOST_ANCESTORS = 10_000
"""So many transactions a walk looks at."""
_DRAFT_S = 120
_NO_SIGNATURES = False
_MOST_PSBT_CHARACTERS = 4_000_000
"""bitcoind takes no request above 32 MiB, and the PSBT holds every transaction that it spends from."""
_ANY_RATE = "0"
"""No bound of the node's own: the plan has its ceiling, and a child pays for its parent too."""


class Spending(Node):
    """One node and one wallet of it, by name."""

    def __init__(self, rpc: Rpc, wallet: str, *, change_type: AddressType = "bech32") -> None:
        super().__init__(rpc)
        self._wallet, self._change_type = wallet, change_type

    # Drafts

    async def change_address(self) -> str:
        """A fresh one. Each call takes another, and the wallet watches also those that nobody uses."""
        return str(await self._call("getrawchangeaddress", self._change_type, wallet=self._wallet))

    async def create_psbt(
        self, inputs: Sequence[Outpoint], outputs: Sequence[tuple[bytes, Sat]], *, sequence: int = REPLACEABLE
    ) -> str:
        """An unsigned transaction of these inputs and outputs (scripts and amounts), in this order, for a `Signer`.

        It holds the transactions that the coins come from, unless that is too long: then the signer must know them.
        Raises ValueError as `unsigned_transaction`, and Unavailable (`coin_unknown`) when the wallet lacks a coin, also
        for the moment in which it has not heard of a transaction that the node has just accepted.
        """
        raw = unsigned_transaction(inputs, outputs, sequence)
        bare: str = await self._call("converttopsbt", raw.hex())
        filled = await self._call("walletprocesspsbt", bare, _NO_SIGNATURES, wallet=self._wallet, timeout_s=_DRAFT_S)
        if len(filled["psbt"]) > _MOST_PSBT_CHARACTERS:
            return bare
        told = await self._call("decodepsbt", filled["psbt"])
        for outpoint, known in zip(inputs, told["inputs"], strict=True):
            if not known.keys() & {"witness_utxo", "non_witness_utxo"}:
                raise unavailable(Reason.COIN_UNKNOWN, f"The wallet {self._wallet} does not know the coin {outpoint}.")
        return str(filled["psbt"])

    # Broadcasts

    async def broadcast(self, raw: str) -> Verdict:
        """Send a signed transaction (hex) to the network. The same bytes may be sent again, also after no answer."""
        try:
            await self._rpc.call("sendrawtransaction", raw, _ANY_RATE)
        except RpcFault as fault:
            verdict = by_fault(fault)
            if verdict is None:
                raise translation("sendrawtransaction", fault) from None
            return await self._or_in_block(raw, verdict)
        return Verdict(fate=Fate.ACCEPTED)

    async def test(self, raw: str) -> Verdict:
        """What `broadcast` would say, without sending anything."""
        try:
            (told,) = await self._rpc.call("testmempoolaccept", [raw], _ANY_RATE)
        except RpcFault as fault:
            verdict = by_fault(fault)
            if verdict is None:
                raise translation("testmempoolaccept", fault) from None
            return verdict
        if told["allowed"]:
            return Verdict(fate=Fate.ACCEPTED)
        said = told.get("reject-details") or told.get("reject-reason") or "no reason"
        return await self._or_in_block(raw, by_words(str(said)))

    async def _or_in_block(self, raw: str, verdict: Verdict) -> Verdict:
        """A transaction whose outputs are all spent again looks to the node as if its inputs were missing."""
        if verdict.fate is Fate.MISSING_INPUTS:
            known = await self.transaction(parse_transaction_hex(raw).txid)
            if known is not None and known.confirmations > 0:
                return Verdict(fate=Fate.CONFIRMED, words=verdict.words)
        return verdict

    # What became of them

    async def transaction(self, txid: Txid) -> WalletTransaction | None:
        """A transaction that the wallet knows; it forgets none.

        None proves nothing: the wallet has never seen it, or is an older copy.
        """
        (told,) = await self._told([txid])
        return None if told is None else _known(told)

    async def mempool_entry(self, txid: Txid) -> MempoolEntry | None:
        """None: it is not in the mempool. It may be in a block, evicted, or replaced."""
        (told,) = await self._each("getmempoolentry", [(txid,)], none_for=faults.NOT_FOUND)
        return None if told is None else _entry(told)

    async def unspent(self, outpoints: Iterable[Outpoint], *, mempool: bool = True) -> frozenset[Outpoint]:
        """Those that exist and that nobody spends: in blocks, and with `mempool` in the mempool too."""
        asked = list(dict.fromkeys(outpoints))
        found = await self._each("gettxout", [(each.txid, each.vout, mempool) for each in asked])
        return frozenset(outpoint for outpoint, told in zip(asked, found, strict=True) if told is not None)

    # Locks

    async def frozen(self) -> frozenset[Outpoint]:
        """All locked coins: those that somebody has locked by hand, and those of `lock`."""
        told = await self._call("listlockunspent", wallet=self._wallet)
        return frozenset(Outpoint(txid=Txid(each["txid"]), vout=each["vout"]) for each in told)

    async def lock(self, outpoints: Iterable[Outpoint]) -> None:
        """Keep other users of the wallet off these coins, over restarts too. What is spent or unknown is left out."""
        await self._lock(outpoints, unlock=False)

    async def unlock(self, outpoints: Iterable[Outpoint]) -> None:
        """Take that back. What is not locked stays so."""
        await self._lock(outpoints, unlock=True)

    async def _lock(self, outpoints: Iterable[Outpoint], *, unlock: bool) -> None:
        """One by one, because bitcoind refuses a list for one of its coins."""
        persistent = () if unlock else (True,)
        params = [(unlock, [{"txid": each.txid, "vout": each.vout}], *persistent) for each in dict.fromkeys(outpoints)]
        await self._each("lockunspent", params, none_for=faults.INVALID_PARAMETER, wallet=self._wallet)

    # Where coins come from

    async def walk_ancestors(self, outpoints: Iterable[Outpoint]) -> frozenset[Outpoint] | None:
        """These outputs, and all that the wallet's own transactions have spent on the way to them.

        The walk ends at what others have paid: whoever paid it has his own origins. None: nothing is proven, because
        the wallet lacks a transaction on the way, or there are more than `MOST_ANCESTORS`.
        """
        found = set(outpoints)
        seen = set[Txid]()
        next_ones = {each.txid for each in found}
        while next_ones:
            seen |= next_ones
            if len(seen) > MOST_ANCESTORS:
                return None
            spent = set[Outpoint]()
            for told in await self._told(sorted(next_ones)):
                if told is None:
                    return None
                if _is_own(told):  # others' transactions may be of any size and are not read
                    spent.update(_known(told).tx.outpoints)
            found |= spent
            next_ones = {each.txid for each in spent} - seen
        return frozenset(found)

    async def _told(self, txids: Sequence[Txid]) -> list[Any]:
        params = [(txid,) for txid in txids]
        return await self._each("gettransaction", params, none_for=faults.NOT_FOUND, wallet=self._wallet)


def _is_own(told: Any) -> bool:  # noqa: ANN401 - JSON
    """A fee is told only of what spends coins of the wallet."""
    return "fee" in told


def _known(told: Any) -> WalletTransaction:  # noqa: ANN401 - JSON
    try:
        tx = parse_transaction_hex(told["hex"])
    except ValueError as error:
        raise InvariantBroken(f"bitcoind has told what is no transaction: {error}", code=UNFORESEEN) from None
    block = Block(height=told["blockheight"], hash=told["blockhash"]) if told["confirmations"] > 0 else None
    return WalletTransaction(
        txid=tx.txid,
        tx=tx,
        raw=told["hex"],
        own=_is_own(told),
        confirmations=told["confirmations"],
        block=block,
        conflicts=tuple(dict.fromkeys([*told["walletconflicts"], *told.get("mempoolconflicts", ())])),
    )


def _entry(told: Any) -> MempoolEntry:  # noqa: ANN401 - JSON
    fees = told["fees"]
    return MempoolEntry(
        height=told["height"],
        fee_sat=Sat(satoshi(fees["base"])),
        vbytes=told["vsize"],
        ancestors=told["ancestorcount"],
        ancestors_vbytes=told["ancestorsize"],
        ancestors_fee_sat=Sat(satoshi(fees["ancestor"])),
        descendants=told["descendantcount"],
        descendants_vbytes=told["descendantsize"],
        descendants_fee_sat=Sat(satoshi(fees["descendant"])),
    )
