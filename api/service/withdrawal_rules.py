"""The rules of withdrawals for operators: the version in force, and the next one. The use cases."""

from typing import Any

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.rulebook import set_edition
from engine.bank.rulebook import Edition, read_current
from engine.domain.withdrawal.rules import parse_rules


async def show_withdrawal_rules(resources: Resources, caller: Caller) -> Edition:
    """The version in force."""
    caller.require_role(*MAY["set withdrawal rules"])
    async with resources.reading() as conn:
        return await read_current(conn, "withdrawals")


async def set_withdrawal_rules(
    resources: Resources, caller: Caller, content: dict[str, Any], *, version: int, note: str
) -> Edition:
    """Put the next version in force. Raises Invalid, and Conflict (`version_conflict`) when another came first."""
    caller.require_role(*MAY["set withdrawal rules"])
    parse_rules(content)
    return await set_edition(resources, caller, "withdrawals", content, version=version, note=note)
