"""What a transaction must pay to be in a block soon, and what a node relays: whole satoshi per 1,000 virtual bytes.

`NodeFees` asks the node. When it has no estimate, or is away, the last one stands with the time at which it was made,
and whoever uses it says how old it may be. `FixedFees` is for chains without a market, such as regtest. Both ask the
node for what it relays, because below that nothing leaves it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Protocol

from engine.clients.bitcoind.fault import translated, words
from engine.clients.bitcoind.node import Node
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import Unavailable
from engine.domain.withdrawal.fee_rate import Estimate

FIXED, NODE = "fixed", "bitcoind"
_PLACES = 8
_MOST = 1
"""A bitcoin for 1,000 virtual bytes: whoever says more does not know."""
_MODE = "economical"
"""Follows a market that falls. What proves too little is bumped."""


class FeeSource(Protocol):
    """Where fee rates come from. Everything may be asked again at any time."""

    async def estimate(self, target_blocks: int) -> Estimate:
        """The rate for a block within so many (1 to 1008). Never raises Unavailable: then it has no newer one."""
        ...

    async def node_floor(self) -> int:
        """The least rate that the node relays now. Raises Unavailable."""
        ...

    async def incremental(self) -> int:
        """How much more per 1,000 virtual bytes a replacement pays for its own relay. Raises Unavailable."""
        ...


class NodeFees:
    """Of one node. Estimates are remembered as long as the process lives."""

    def __init__(self, rpc: Rpc, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._rpc, self._node, self._now = rpc, Node(rpc), now
        self._last: dict[int, Estimate] = {}
        """By target."""

    async def estimate(self, target_blocks: int) -> Estimate:
        """As `FeeSource`; `detail` says why the rate is missing or is not of now."""
        try:
            with translated("estimatesmartfee"):
                told = await self._rpc.call("estimatesmartfee", target_blocks, _MODE)
        except Unavailable as error:
            return self._remembered(target_blocks, error.detail)
        rate = rate_sat_kvb(told.get("feerate"))
        if rate is None:
            return self._remembered(target_blocks, _why(told))
        detail = f"for a block within {target_blocks}"
        if told.get("blocks") not in (None, target_blocks):
            detail += f", by what bitcoind knows of {words(str(told['blocks']))}"
        found = Estimate(rate_sat_kvb=rate, source=NODE, at=self._now(), detail=detail)
        self._last[target_blocks] = found
        return found

    async def node_floor(self) -> int:
        """The higher one of what it always asks, and what its mempool asks now."""
        policy = await self._node.read_policy()
        return max(policy.min_relay_sat_per_kvb, policy.mempool_min_sat_per_kvb)

    async def incremental(self) -> int:
        """Of its policy (`incrementalrelayfee`)."""
        return (await self._node.read_policy()).incremental_sat_per_kvb

    def _remembered(self, target_blocks: int, why: str) -> Estimate:
        last = self._last.get(target_blocks)
        return (
            Estimate(rate_sat_kvb=None, source=NODE, at=None, detail=why) if last is None else replace(last, detail=why)
        )


class FixedFees(NodeFees):
    """One rate for every target, which does not age. What the node relays is still the node's."""

    def __init__(self, rpc: Rpc, rate: int) -> None:
        super().__init__(rpc)
        self._rate = rate

    async def estimate(self, target_blocks: int) -> Estimate:
        """The rate of the settings."""
        detail = f"the same for every target, such as {target_blocks}"
        return Estimate(rate_sat_kvb=self._rate, source=FIXED, at=None, detail=detail)


def fee_source(rpc: Rpc, fixed_rate: int | None) -> FeeSource:
    """By the setting `fixed_fee_rate`; None: the node's estimates."""
    return NodeFees(rpc) if fixed_rate is None else FixedFees(rpc, fixed_rate)


def rate_sat_kvb(told: object) -> int | None:
    """Bitcoin for 1,000 virtual bytes as whole satoshi, rounded up. None for what is no rate."""
    if isinstance(told, (int, Decimal)) and not isinstance(told, bool):
        rate = Decimal(told)
        if rate.is_finite() and 0 < rate <= _MOST:
            return int(rate.scaleb(_PLACES).to_integral_value(ROUND_CEILING))
    return None


def _why(told: Any) -> str:  # noqa: ANN401 - JSON
    errors = told.get("errors")
    said = "; ".join(str(each) for each in errors) if isinstance(errors, list) else ""
    return words(said) or "bitcoind has told no rate"
