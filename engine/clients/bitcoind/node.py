"""The chain and the mempool as one node has them, without any wallet."""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.clients.bitcoind import fault as faults
from engine.clients.bitcoind.answer import BranchState, ChainInfo, MempoolPolicy, Outpoint, satoshi
from engine.clients.bitcoind.fault import RpcFault, translated, translation
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Block
from engine.domain.errors import InvariantBroken

BATCH = 100
"""So many calls go in one request. One thread of bitcoind works them off in turn."""
_NETWORKS = {"main": "mainnet", "test": "testnet"}
_MAX_STEPS = 2000


class Node:
    """Reads of one node, which may all be repeated. Each raises Unavailable with a `reason` of `fault.Reason`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def read_info(self) -> ChainInfo:
        """The chain, how far the node is, and its version."""
        chain, network = await self._mixed([("getblockchaininfo", ()), ("getnetworkinfo", ())])
        return ChainInfo(
            network=_NETWORKS.get(chain["chain"], chain["chain"]),
            tip=Block(height=chain["blocks"], hash=chain["bestblockhash"]),
            headers=chain["headers"],
            work=chain["chainwork"],
            initial_download=chain["initialblockdownload"],
            pruned_below=chain.get("pruneheight") or None,
            version=network["version"],
            subversion=network["subversion"],
            warnings=_joined(chain["warnings"]),
        )

    async def read_policy(self) -> MempoolPolicy:
        """What the mempool takes now."""
        told = await self._call("getmempoolinfo")
        return MempoolPolicy(
            min_relay_sat_per_kvb=satoshi(told["minrelaytxfee"]),
            mempool_min_sat_per_kvb=satoshi(told["mempoolminfee"]),
            incremental_sat_per_kvb=satoshi(told["incrementalrelayfee"]),
            full_rbf=told.get("fullrbf"),
            transactions=told["size"],
            bytes=told["bytes"],
            max_bytes=told["maxmempool"],
        )

    async def hashes_at(self, heights: Sequence[int]) -> list[str | None]:
        """The hashes of the active chain at these heights, None above the tip.

        A reorganisation may happen in between; then the hashes are of two chains.
        """
        asked = [(height,) for height in heights]
        return await self._each("getblockhash", asked, none_for=faults.INVALID_PARAMETER)

    async def get_header(self, block_hash: str) -> Block | None:
        """A block that the node knows, on whatever branch and with or without its transactions; None: unknown."""
        header = await self._header(block_hash)
        return None if header is None else Block(height=header["height"], hash=header["hash"])

    async def branch_of(self, block: Block) -> BranchState:
        """Whether the active chain holds the block, has left it, or has not reached it.

        Raises InvariantBroken when the block of this hash has another height.
        """
        header = await self._header(block.hash)
        if header is None:
            return BranchState.UNKNOWN
        if header["height"] != block.height:
            raise InvariantBroken(f"block {block.hash} has height {header['height']}, not {block.height}")
        if header["confirmations"] >= 0:
            return BranchState.ACTIVE
        tips: list[Any] = await self._call("getchaintips")
        holding = [tip for tip in tips if tip["branchlen"] and _spans(tip, block.height)]
        states = await self._states_of(holding, tips)
        if len(set(states)) == 1:
            return states[0]
        for tip, state in zip(holding, states, strict=True):
            if await self._is_ancestor(block, tip):
                return state
        return BranchState.UNKNOWN

    async def find_in_blocks(self, txids: Iterable[str], hashes: Sequence[str]) -> dict[str, Block]:
        """Those of these transactions that the blocks with these hashes hold. It reads whole blocks: for a few."""
        wanted, found = set(txids), dict[str, Block]()
        for block in await self._each("getblock", [(each, 1) for each in hashes]):
            place = Block(height=block["height"], hash=block["hash"])
            found |= dict.fromkeys(wanted.intersection(block["tx"]), place)
        return found

    async def is_unspent(self, outpoints: Iterable[Outpoint]) -> dict[Outpoint, bool]:
        """Whether each output exists and nobody spends it, in the active chain or in the mempool."""
        asked = list(dict.fromkeys(outpoints))
        found = await self._each("gettxout", [(txid, vout, True) for txid, vout in asked])
        return {outpoint: answer is not None for outpoint, answer in zip(asked, found, strict=True)}

    async def _states_of(self, branches: Sequence[Any], tips: Sequence[Any]) -> list[BranchState]:
        """A branch that the node has not checked is a fork too, once the active chain has more work."""
        active = next(tip for tip in tips if tip["status"] == "active")
        headers = await self._each("getblockheader", [(tip["hash"],) for tip in (active, *branches)])
        work: str = headers[0]["chainwork"]
        return [
            BranchState.FORK
            if tip["status"] in ("valid-fork", "invalid") or header["chainwork"] < work
            else BranchState.UNKNOWN
            for tip, header in zip(branches, headers[1:], strict=True)
        ]

    async def _is_ancestor(self, block: Block, tip: Any) -> bool:  # noqa: ANN401 - JSON
        header = await self._header(tip["hash"])
        for _ in range(_MAX_STEPS):
            if header is None or header["height"] <= block.height:
                break
            header = await self._header(header["previousblockhash"])
        return header is not None and header["hash"] == block.hash

    async def _header(self, block_hash: str) -> Any | None:  # noqa: ANN401 - JSON
        (header,) = await self._each("getblockheader", [(block_hash,)], none_for=faults.NOT_FOUND)
        return header

    # How calls go

    async def _call(
        self, method: str, *params: object, wallet: str | None = None, timeout_s: float = 30, repeat: bool = True
    ) -> Any:  # noqa: ANN401 - JSON
        with translated(method):
            return await self._rpc.call(method, *params, wallet=wallet, timeout_s=timeout_s, repeat=repeat)

    async def _each(
        self,
        method: str,
        params: Sequence[Sequence[object]],
        *,
        none_for: int | None = None,
        wallet: str | None = None,
        repeat: bool = True,
    ) -> list[Any]:
        """One method for many parameters, in batches; None stands for a fault of the code `none_for`."""
        answers: list[Any] = []
        for start in range(0, len(params), BATCH):
            calls = [(method, each) for each in params[start : start + BATCH]]
            answers += await self._mixed(calls, none_for=none_for, wallet=wallet, repeat=repeat)
        return answers

    async def _mixed(
        self,
        calls: Sequence[tuple[str, Sequence[object]]],
        *,
        none_for: int | None = None,
        wallet: str | None = None,
        repeat: bool = True,
    ) -> list[Any]:
        """Calls in one request."""
        answers = await self._rpc.batch(calls, wallet=wallet, repeat=repeat)
        return [_answer(method, each, none_for) for (method, _), each in zip(calls, answers, strict=True)]


def _answer(method: str, answer: Any, none_for: int | None) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(answer, RpcFault):
        return answer
    if answer.code == none_for:
        return None
    raise translation(method, answer)


def _spans(tip: Any, height: int) -> bool:  # noqa: ANN401 - JSON
    return bool(tip["height"] - tip["branchlen"] < height <= tip["height"])


def _joined(warnings: object) -> str:
    """A list since version 28; one text before, and with `-deprecatedrpc=warnings`."""
    return "; ".join(warnings) if isinstance(warnings, list) else str(warnings)
