"""What a withdrawal would cost by the fee rates, the queue and the coins of this moment. An estimate: nothing is held.

    share in the next batch   the fee of a transaction with all that wait for it and this one, by output weight
    share alone               the fee of a transaction with this output and change
    cap by default            twice the share alone, and at least the share alone at the lowest rate of the rulebook

The rates are those that the pump of the hot wallet last wrote down: the API never calls bitcoind. The largest free
coins say how many inputs an amount needs; a wallet without coins counts as if one were enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.domain.money import Sat
from engine.domain.withdrawal.fee_rate import Estimate, Rate, choose_rate
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import dust_sat, input_weight, output_weight
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.weight import fee_sat, transaction_weight
from engine.domain.withdrawal.withdrawal import Speed
from engine.views.withdrawal.withdrawal import QueueFigures

_TYPICAL_INPUT = input_weight(bytes([0x00, 20]) + bytes(20))
_TYPICAL_OUTPUT = output_weight(bytes([0x51, 32]) + bytes(32))
"""A taproot output: the larger one of the two that most wallets have. Also for the change."""
_BLOCK_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Rates, queue and coins at one moment."""

    wallet: str
    """The hot wallet."""
    rules: WithdrawalRules
    fees: Mapping[str, Any]
    """What the pump reported of the node's fee rates; empty before it has."""
    queue: Mapping[Speed, QueueFigures]
    coins: Sequence[Sat]
    """The amounts of the largest free ones, largest first."""
    at: datetime

    def rate(self, speed: Speed) -> Rate:
        """What a payout of this speed would pay now."""
        estimate = _estimate(self.fees, self.rules.speeds[speed].target_blocks)
        return choose_rate(estimate, node_floor=_whole(self.fees.get("floor")), rules=self.rules.rate, now=self.at)

    def waiting(self, speed: Speed) -> int:
        """How many wait at this speed."""
        return self.queue[speed].count if speed in self.queue else 0

    def sharing(self, speed: Speed) -> int:
        """How many of them go into one transaction: neither those that go alone nor the unlinked ones."""
        return self.queue[speed].sharing if speed in self.queue else 0

    def minimum_sat(self, script: bytes) -> Sat:
        """The smallest withdrawal to this script."""
        return max(self.rules.minimum_sat, dust_sat(script))

    def share_alone(self, script: bytes, amount_sat: Sat, rate_sat_kvb: int) -> Sat:
        """The miner fee of a transaction that pays only this output."""
        return self._fee(amount_sat, [output_weight(script)], rate_sat_kvb)

    def share_in_batch(self, script: bytes, amount_sat: Sat, speed: Speed) -> Sat:
        """The share in the next batch with what waits now for the same; alone, where nothing does."""
        speed_rules = self.rules.speeds[speed]
        others = max(0, min(self.sharing(speed), speed_rules.count - 1, self.rules.max_outputs - 1))
        total_sat = amount_sat + (self.queue[speed].sharing_sat if others else 0)
        outputs = [output_weight(script), *[_TYPICAL_OUTPUT] * others]
        return split(self._fee(Sat(total_sat), outputs, self.rate(speed).rate_sat_kvb), outputs)[0]

    def fee_cap(self, script: bytes, amount_sat: Sat, speed: Speed) -> Sat:
        """What the share may be by default."""
        now_sat = self.share_alone(script, amount_sat, self.rate(speed).rate_sat_kvb)
        return max(Sat(2 * now_sat), self.share_alone(script, amount_sat, self.rules.rate.floor))

    def expected_s(self, speed: Speed) -> int:
        """How long until a block has it: the window of its batch, and the blocks that its rate aims at."""
        speed_rules = self.rules.speeds[speed]
        return speed_rules.window_s + speed_rules.target_blocks * _BLOCK_S

    def _fee(self, total_sat: Sat, outputs: Sequence[int], rate_sat_kvb: int) -> Sat:
        inputs = [_TYPICAL_INPUT] * self._inputs_for(total_sat)
        return fee_sat(transaction_weight(inputs, [*outputs, _TYPICAL_OUTPUT]), rate_sat_kvb)

    def _inputs_for(self, total_sat: Sat) -> int:
        found, count = 0, 0
        for coin_sat in self.coins[: self.rules.coins.max_inputs]:
            found, count = found + coin_sat, count + 1
            if found > total_sat:
                break
        return max(1, count)


def _estimate(fees: Mapping[str, Any], target_blocks: int) -> Estimate:
    """What was reported for this target. What cannot be read is no estimate."""
    estimates = fees.get("estimates")
    told = estimates.get(str(target_blocks)) if isinstance(estimates, dict) else None
    if not isinstance(told, dict):
        return Estimate(rate_sat_kvb=None, source="bitcoind", at=None)
    rate_sat_kvb, at = _whole(told.get("rate_sat_kvb")) or None, told.get("at")
    if at is not None:
        at = _moment(at)
        rate_sat_kvb = None if at is None else rate_sat_kvb  # nobody can tell how old it is
    return Estimate(rate_sat_kvb=rate_sat_kvb, source=str(told.get("source") or "bitcoind")[:100], at=at)


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if found is None or found.tzinfo is None else found


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
