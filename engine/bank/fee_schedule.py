"""Which fee applies: the schedule in force when a payment is opened or a receipt booked.

The transaction reads the version in force with a row that it needs anyway. A version never changes, so a process
reads and parses it once, and no payment waits for a query of its own. Each charge is kept with version and level:
`engine.domain.fee.fee` computes the same again at any time.
"""

from engine.bank.rulebook import find_edition
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.fee import Charge, FeeSchedule, Kind, fee, parse_schedule
from engine.domain.money import Msat
from engine.ledger.database import Connection


class FeeBook:
    """Schedules by version, remembered once read. One per pool."""

    def __init__(self) -> None:
        self._schedules: dict[int, FeeSchedule] = {}

    async def charge(self, conn: Connection, kind: Kind, amount_msat: Msat, *, level: int, version: int) -> Charge:
        """Our fee under this version. Raises InvariantBroken for a version that is not there or cannot be used."""
        if version not in self._schedules:
            self._schedules[version] = await _read_schedule(conn, version)
        fee_msat = fee(self._schedules[version], kind, amount_msat, level)
        return Charge(fee_msat=fee_msat, version=version, level=level)


async def _read_schedule(conn: Connection, version: int) -> FeeSchedule:
    edition = await find_edition(conn, "fees", version)
    if edition is None:
        raise InvariantBroken(f"there is no version {version} of the fees")
    try:
        return parse_schedule(edition.content)
    except Invalid as error:
        raise InvariantBroken(f"version {version} of the fees is in force: {error.detail}") from error
