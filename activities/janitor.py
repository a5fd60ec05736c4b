"""Finds rows that wait for a workflow that is gone, and starts the workflow of each row again.

    list what is not final  →  ask Temporal which of their workflows run  →  start the others again

Temporal's list may be some seconds old, in both directions. A running workflow is never started twice, whatever the
list says: the start finds it. One that has just ended and is still listed is found in the next round. A new start is
safe because every workflow's first step finds in the books what was done: the key is claimed, the hold is there.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.heartbeat import heartbeats
from engine.bank import payment, reconciliation
from engine.bank.janitor import (
    ACCEPTED,
    CASES,
    CORRECTIONS,
    PAYMENTS,
    RUNS,
    START,
    Shelf,
    forget_opened,
    list_owed,
    read_facts,
)
from engine.contracts.batch import BatchRequest, batch_start
from engine.contracts.correction import Proposal, correction_start
from engine.contracts.janitor import JanitorActivities, Round, Tidied
from engine.contracts.payment import PaymentRequest, payment_start
from engine.contracts.reconciliation import OpenCase, RunStatus, case_start
from engine.contracts.workflow_start import WorkflowStart, start_workflow
from engine.domain.errors import EngineError
from engine.domain.ids import PaymentId
from engine.ledger.database import Pool, borrowed, transaction

_PAGE = 1000
_ASKED_AT_ONCE = 100
_BEGUN_AT_ONCE = 1000
"""How many workflows of one kind a round starts. The next round comes within a minute."""
_FIRST_REST_S, _LONGEST_REST_S = 60, 1800
_CALL_LIMIT = timedelta(seconds=10)

_PAYMENT, _BATCH = TypeAdapter(PaymentRequest), TypeAdapter(BatchRequest)
_PROPOSAL, _CASE = TypeAdapter(Proposal), TypeAdapter(OpenCase)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of row, and the function that starts the workflow of one."""

    shelf: Shelf
    begin: Callable[[Client, Pool, Mapping[str, Any]], Awaitable[None]]


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
            async for found in self._client.list_workflows(query, rpc_timeout=_CALL_LIMIT):
                running.add(found.id)
        return running


async def _begin_payment(client: Client, pool: Pool, facts: Mapping[str, Any]) -> None:
    """The payment's money is held. A lane may have opened it; from now on it waits for this workflow."""
    asked = _PAYMENT.validate_python(
        {
            "payment_id": facts["id"],
            "account_id": facts["account_id"],
            "wallet_id": facts["wallet_id"],
            "idempotency_key": facts["key"],
            "body_hash": facts["body_hash"].hex(),
            "destination": facts["destination"],
            "bolt11": facts["bolt11"],
            "payment_hash": facts["payment_hash"],
            "amount_in_invoice": facts["amount_in_invoice"],
            "amount_msat": facts["amount_msat"],
            "max_fee_msat": facts["routing_cap_msat"],
            "memo": facts["memo"],
            "external_id": facts["external_id"],
            "payee_node": facts["destination"] if facts["bolt11"] is None else None,
        }
    )
    start = payment_start(asked)
    await _begin(client, start)
    async with borrowed(pool) as conn:
        await payment.hand_over(conn, PaymentId(facts["id"]), start.id)


async def _begin_accepted(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    if facts["kind"] == "payment":
        await _begin(client, payment_start(_PAYMENT.validate_python(facts["request"])))
    else:
        await _begin(client, batch_start(_BATCH.validate_python(facts["request"])))


async def _begin_correction(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    """The key is left empty: the audit trail already names the proposer and the key."""
    proposal = _PROPOSAL.validate_python(
        {
            "correction": facts["id"],
            "kind": facts["kind"],
            "debit": facts["debit"],
            "credit": facts["credit"],
            "amount_msat": facts["amount_msat"],
            "reason": facts["reason"],
            "operator": facts["proposed_by"],
            "key_id": "",
            "idempotency_key": facts["key"],
            "body_hash": facts["body_hash"].hex(),
            "case": facts["case_id"],
            "reference": facts["reference"],
            "expires_at": facts["expires_at"],
        }
    )
    await _begin(client, correction_start(proposal))


async def _begin_case(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    case = _CASE.validate_python({"case": facts["id"], **{name: facts[name] for name in facts if name != "id"}})
    await _begin(client, case_start(case))


async def _end_run(_client: Client, pool: Pool, facts: Mapping[str, Any]) -> None:
    """End a lost run as incomplete, without findings. Another run comes within the hour."""
    async with transaction(pool) as conn:
        nothing: dict[str, Any] = {"accounts": [], "findings": []}
        await reconciliation.finish_in_tx(conn, facts["id"], status=RunStatus.INCOMPLETE, report=nothing)


KINDS: Mapping[str, Kind] = {
    "payments": Kind(PAYMENTS, _begin_payment),
    "accepted": Kind(ACCEPTED, _begin_accepted),
    "corrections": Kind(CORRECTIONS, _begin_correction),
    "cases": Kind(CASES, _begin_case),
    "runs": Kind(RUNS, _end_run),
}
"""Every kind of row that `engine/contracts/janitor.py` names."""


async def _begin(client: Client, start: WorkflowStart[Any]) -> None:
    """Start the workflow even if an earlier run has ended: the row says that it is not done."""
    await start_workflow(client, start.again(), call_limit=_CALL_LIMIT)
