"""Finds rows that wait for a workflow that is gone, and starts the workflow of each row again (`janitor_kind.py`).

    list what is not final  →  ask Temporal which of their workflows run  →  start the others again

Temporal's list may be some seconds old, in both directions. A running workflow is never started twice, whatever the
list says: the start finds it. One that has just ended and is still listed is found in the next round. A new start is
safe because every workflow's first step finds in the books what was done: the key is claimed, the hold is there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.heartbeat import heartbeats
from activities.janitor_kind import CALL_LIMIT, KINDS, Kind
from engine.bank.janitor import START, forget_opened, list_owed, read_facts
from engine.contracts.janitor import JanitorActivities, Round, Tidied
from engine.domain.errors import EngineError
from engine.ledger.database import Pool, borrowed

_PAGE = 1000
_ASKED_AT_ONCE = 100
_BEGUN_AT_ONCE = 1000
"""How many workflows of one kind a round starts. The next round comes within a minute."""
_FIRST_REST_S, _LONGEST_REST_S = 60, 1800


@dataclass(frozen=True, slots=True)
class _Helpless:
    """A row that could not be helped. It rests ever longer between tries, so that such rows do not hold up others."""

    kind: str
    why: str
    tries: int
    until: float


class Janitor(JanitorActivities):
    """Needs Postgres and Temporal."""

    def __init__(self, pool: Pool, client: Client) -> None:
        self._pool = pool
        self._client = client
        self._helpless: dict[str, _Helpless] = {}

    @activity.defn
    async def tidy_up(self, walk: Round) -> Tidied:
        """Each kind and each row is handled by itself: a failure does not hold up the others."""
        begun: dict[str, int] = {}
        failed: dict[str, str] = {}
        async with heartbeats():
            self._forget_old()
            async with borrowed(self._pool) as conn:
                await forget_opened(conn)
            for name, kind in KINDS.items():
                begun[name] = 0
                try:
                    lost = await self._find_lost(kind, timedelta(seconds=walk.older_than_s))
                except (EngineError, RPCError) as error:
                    activity.logger.error("rows of the kind %s could not be looked through: %s", name, error)
                    failed[name] = f"looking: {type(error).__name__}"
                    continue
                for facts in lost:
                    try:
                        await kind.begin(self._client, self._pool, facts)
                        begun[name] += 1
                        self._helpless.pop(facts["id"], None)
                    except (EngineError, RPCError, ValidationError, ValueError, TypeError, AttributeError) as error:
                        activity.logger.error("%s has no workflow and cannot be given one: %s", facts["id"], error)
                        self._stand_back(facts["id"], name, type(error).__name__)
        failed = {
            one.kind: f"{row_id}: {one.why}" for row_id, one in self._helpless.items() if self._rests(row_id)
        } | failed
        return Tidied(begun=begun, failed=failed)

    async def _find_lost(self, kind: Kind, age: timedelta) -> list[dict[str, Any]]:
        """The facts needed to start again, of the oldest rows for which no workflow runs."""
        lost: list[str] = []
        after = START
        while len(lost) < _BEGUN_AT_ONCE:
            async with borrowed(self._pool) as conn:
                page = await list_owed(conn, kind.shelf, after=after, age=age, limit=_PAGE)
            running = await self._list_running([each for owed in page for each in owed.workflow_ids])
            lost += [
                owed.id for owed in page if not self._rests(owed.id) and not running.intersection(owed.workflow_ids)
            ]
            if len(page) < _PAGE:
                break
            after = (page[-1].at, page[-1].id)
        async with borrowed(self._pool) as conn:
            return await read_facts(conn, kind.shelf, lost[:_BEGUN_AT_ONCE]) if lost else []

    def _stand_back(self, row_id: str, kind: str, why: str) -> None:
        known = self._helpless.get(row_id)
        tries = 1 if known is None else known.tries + 1
        rest_s = min(_FIRST_REST_S << min(tries - 1, 10), _LONGEST_REST_S)
        self._helpless[row_id] = _Helpless(kind, why, tries, time.monotonic() + rest_s)

    def _rests(self, row_id: str) -> bool:
        known = self._helpless.get(row_id)
        return known is not None and known.until > time.monotonic()

    def _forget_old(self) -> None:
        oldest = time.monotonic() - _LONGEST_REST_S
        self._helpless = {row_id: one for row_id, one in self._helpless.items() if one.until > oldest}

    async def _list_running(self, workflow_ids: Sequence[str]) -> set[str]:
        wanted = sorted(set(workflow_ids))
        running: set[str] = set()
        for at in range(0, len(wanted), _ASKED_AT_ONCE):
            named = ", ".join(f'"{each}"' for each in wanted[at : at + _ASKED_AT_ONCE])
            query = f'ExecutionStatus = "Running" AND WorkflowId IN ({named})'
            async for found in self._client.list_workflows(query, rpc_timeout=CALL_LIMIT):
                running.add(found.id)
        return running
