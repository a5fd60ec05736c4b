"""The rulebook of deposits in force."""

from engine.bank.rulebook import read_current
from engine.domain.deposit import DepositRules, parse_rules
from engine.ledger.database import Reader


async def read_deposit_rules(conn: Reader) -> DepositRules:
    """The version in force, read."""
    return parse_rules((await read_current(conn, "deposits")).content)
