"""The fee schedule for operators: the version in force, an earlier one, the next one, and a preview. The use cases.

A schedule that cannot be used is refused, with the place of the error, before anything is written.
"""

from dataclasses import dataclass
from typing import Any

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.rulebook import set_edition
from engine.bank.rulebook import Edition, find_edition, read_current
from engine.domain.errors import no_such
from engine.domain.fee import Effect, Kind, explain, parse_schedule
from engine.domain.money import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePreview:
    """What would be charged, step by step."""

    version: int | None
    """None: the schedule came with the request."""
    steps: list[Effect]

    @property
    def fee_msat(self) -> Msat:
        """After the last step."""
        return self.steps[-1].fee_msat if self.steps else Msat(0)


async def show_fees(resources: Resources, caller: Caller, version: int | None = None) -> Edition:
    """A version of the schedule; without one, the version in force. Raises NotFound."""
    caller.require_role(*MAY["set fees"])
    async with resources.reading() as conn:
        edition = await read_current(conn, "fees") if version is None else await find_edition(conn, "fees", version)
    if edition is None:
        raise no_such("version")
    return edition


async def set_fees(
    resources: Resources, caller: Caller, content: dict[str, Any], *, version: int, note: str
) -> Edition:
    """Put the next version in force. A payment that has been opened keeps the fee of its time.

    Raises Invalid, and Conflict (`version_conflict`) when another version came first.
    """
    caller.require_role(*MAY["set fees"])
    parse_schedule(content)
    return await set_edition(resources, caller, "fees", content, version=version, note=note)


async def preview_fee(
    resources: Resources,
    caller: Caller,
    kind: Kind,
    amount_msat: Msat,
    *,
    level: int = 0,
    content: dict[str, Any] | None = None,
) -> FeePreview:
    """What a movement would be charged by this schedule; without one, by the schedule in force. Changes nothing."""
    caller.require_role(*MAY["set fees"])
    version = None
    if content is None:
        async with resources.reading() as conn:
            current = await read_current(conn, "fees")
        version, content = current.version, current.content
    return FeePreview(version=version, steps=list(explain(parse_schedule(content), kind, amount_msat, level)))
