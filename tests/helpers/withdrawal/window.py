"""The doors of withdrawals with a Temporal that is played: the real activities do what the API starts or tells.

`FakeTemporal` runs no workflow. It opens a withdrawal when its workflow is started, and carries out updates, as the
workflows do; an error of an activity comes back as an update's failure.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from temporalio.client import WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from activities.failures import as_failure
from engine.contracts.payout import DecidePayout, PayoutRef
from engine.contracts.withdrawal import (
    DecideWithdrawal,
    OpenedWithdrawal,
    WithdrawalApproval,
    WithdrawalRef,
    WithdrawalRequest,
)
from engine.domain.errors import EngineError
from engine.domain.ids import WithdrawalId
from tests.fixtures.postgres import Database
from tests.helpers.api import Json, User
from tests.helpers.withdrawal.teller import Withdrawers, outside, running_withdrawers

DecideIt = Callable[[DecidePayout], Awaitable[object]]


@dataclass
class FakeTemporal:
    """Stands for Temporal's client."""

    bank: Withdrawers
    started: list[tuple[str, str | None]] = field(default_factory=list)
    """The id of each workflow that was started or found, and the signal that came with the start."""
    requests: dict[str, WithdrawalRequest] = field(default_factory=dict)
    """By workflow id."""
    decided: list[DecidePayout] = field(default_factory=list)
    is_away: bool = False
    has_workers: bool = True
    gone: set[str] = field(default_factory=set)
    """Workflows that do not run."""
    decide_payout: DecideIt | None = None

    async def start_workflow(
        self,
        _workflow: str,
        argument: Any,
        *,
        id: str,  # noqa: A002 - the SDK's signature
        start_signal: str | None = None,
        **_how: Any,
    ) -> Any:
        if self.is_away:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
        is_new = id not in self.requests
        self.started.append((id, start_signal))
        if isinstance(argument, WithdrawalRequest):
            kept = self.requests.setdefault(id, argument)
            if self.has_workers:
                await self.open(kept)
        return SimpleNamespace(id=id, _start_workflow_response=SimpleNamespace(started=is_new))

    async def open(self, request: WithdrawalRequest) -> OpenedWithdrawal:
        """What a worker does with a workflow that was started."""
        return await self.bank.withdrawals.open_withdrawal(request)

    def get_workflow_handle(self, workflow_id: str) -> Any:
        async def execute_update(update: Any, word: WithdrawalApproval | None = None) -> object:
            if self.is_away or workflow_id in self.gone:
                status = RPCStatusCode.UNAVAILABLE if self.is_away else RPCStatusCode.NOT_FOUND
                raise RPCError("gone", status, b"")
            ref = WithdrawalRef(withdrawal_id=self.requests[workflow_id].withdrawal_id)
            if update.__name__ == "cancel":
                return await _updated(self.bank.withdrawals.cancel_withdrawal(ref))
            assert update.__name__ == "decide"
            assert word is not None
            asked = DecideWithdrawal(withdrawal_id=ref.withdrawal_id, approval=word)
            return await _updated(self.bank.withdrawals.decide_withdrawal(asked))

        return SimpleNamespace(execute_update=execute_update)

    async def execute_update_with_start_workflow(
        self,
        update: Any,
        word: WithdrawalApproval,
        *,
        start_workflow_operation: WithStartWorkflowOperation[Any, Any],
        **_how: Any,
    ) -> object:
        assert update.__name__ == "decide"
        if self.is_away:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
        (payout,) = start_workflow_operation._start_workflow_input.args
        assert isinstance(payout, PayoutRef)
        decide = DecidePayout(payout_id=payout.payout_id, approval=word)
        self.decided.append(decide)
        if self.decide_payout is None:
            raise AssertionError("nobody decides about payouts in this test")
        return await _updated(self.decide_payout(decide))


async def _updated(done: Awaitable[object]) -> object:
    try:
        return await done
    except EngineError as error:
        failed = WorkflowUpdateFailedError(as_failure(error))
    raise failed


@dataclass
class Window:
    """Where users ask for withdrawals, and operators look at them."""

    bank: Withdrawers
    temporal: FakeTemporal

    async def operator(self, *scopes: str) -> User:
        return await self.bank.payers.api.open_account(scopes=scopes or ("finance", "treasury"))

    async def ask(self, user: User, *, key: str | None = None, prefer: str = "", **body: Any) -> httpx.Response:
        sent = {"wallet_id": user.wallet_id, "address": outside(), "amount_sat": 100_000, **body}
        sent = {name: value for name, value in sent.items() if value is not None}
        headers = {"Prefer": prefer} if prefer else {}
        return await user.post("/v1/withdrawals", sent, key=key or secrets.token_hex(8), **headers)

    async def asked(self, user: User, **body: Any) -> Json:
        answer = await self.ask(user, **body)
        assert answer.status_code == 202, answer.text
        found: Json = answer.json()
        assert answer.headers["location"] == f"/v1/withdrawals/{found['id']}"
        return found

    async def show(self, user: User, withdrawal_id: str) -> Json:
        answer = await user.get(f"/v1/withdrawals/{withdrawal_id}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def cancel(self, user: User, withdrawal_id: str) -> httpx.Response:
        return await user.http.delete(f"/v1/withdrawals/{withdrawal_id}", headers=user.headers)

    async def quote(self, user: User, **body: Any) -> Json:
        sent = {"wallet_id": user.wallet_id, "address": outside(), "amount_sat": 100_000, **body}
        sent = {name: value for name, value in sent.items() if value is not None}
        answer = await user.post("/v1/withdrawals/quote", sent)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def sent(self, *withdrawals: Json) -> str:
        """All in one payout that the network has; gives its txid."""
        made = await self.bank.seal([WithdrawalId(each["id"]) for each in withdrawals])
        txid = await self.bank.sign(made)
        await self.bank.send(made)
        return str(txid)

    async def rules(self, operator: User, **changed: Any) -> None:
        """Put the next version of the rulebook in force."""
        known = (await operator.get("/v1/admin/withdrawals/rules")).json()
        body = {"content": known["content"] | changed, "note": "test", "version": known["version"] + 1}
        answer = await operator.http.put("/v1/admin/withdrawals/rules", json=body, headers=operator.headers)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def open_window(database: Database, folder: Path) -> AsyncIterator[Window]:
    """The API on this database."""
    async with running_withdrawers(database, folder) as bank:
        temporal = FakeTemporal(bank)
        bank.payers.api.change(temporal=temporal)
        yield Window(bank, temporal)
