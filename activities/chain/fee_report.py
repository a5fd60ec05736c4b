"""What the pump says of fee rates, so that the API, which never calls bitcoind, can quote a withdrawal.

    {"estimates": {"2": {"rate_sat_kvb": 12000, "source": "bitcoind", "at": "2026-01-31T12:00:00+00:00", "detail": ""}},
     "floor": 1000, "incremental": 1000}

There is one estimate for each target, in blocks, that the rulebook "withdrawals" names. A rate of null: none was ever
made. `at` of null: it does not age. `detail` says why the rate is missing or old. Rates are sat per 1,000 vB.
"""

from temporalio import activity

from engine.bank import rulebook
from engine.clients.bitcoind.fees import FeeSource
from engine.domain.errors import EngineError, Unavailable
from engine.domain.withdrawal.fee_rate import Estimate
from engine.domain.withdrawal.rules import parse_rules
from engine.ledger.database import Pool, borrowed


class FeeReporter:
    """Bound to one source of rates."""

    def __init__(self, fees: FeeSource, pool: Pool) -> None:
        self._fees, self._pool = fees, pool

    async def report(self) -> dict[str, object] | None:
        """For the pump. None: rules or answers cannot be read, which keeps no deposit from being followed.

        Raises Unavailable while bitcoind or the database is away.
        """
        try:
            return await self.read()
        except Unavailable:
            raise
        except EngineError as error:
            activity.logger.warning("no fee rates are reported: %s", error.detail)
            return None

    async def read(self) -> dict[str, object]:
        """The report. Raises Unavailable as above, and Invalid for rules that cannot be read."""
        async with borrowed(self._pool) as conn:
            rules = parse_rules((await rulebook.read_current(conn, "withdrawals")).content)
        targets = sorted({each.target_blocks for each in rules.speeds.values()})
        return {
            "estimates": {str(target): _told(await self._fees.estimate(target)) for target in targets},
            "floor": await self._fees.node_floor(),
            "incremental": await self._fees.incremental(),
        }


def _told(estimate: Estimate) -> dict[str, object]:
    return {
        "rate_sat_kvb": estimate.rate_sat_kvb,
        "source": estimate.source,
        "at": None if estimate.at is None else estimate.at.isoformat(),
        "detail": estimate.detail,
    }
