"""The rulebook of withdrawals in force."""

from engine.bank.rulebook import read_current
from engine.domain.withdrawal.rules import WithdrawalRules, parse_rules
from engine.ledger.database import Reader


async def read_withdrawal_rules(conn: Reader) -> WithdrawalRules:
    """The version in force, read."""
    return parse_rules((await read_current(conn, "withdrawals")).content)
