"""What operators do, called from plain Python: no HTTP, and a made-up Temporal whose workflows run at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.correction import Corrections
from api.http.codes import Forbidden
from api.service import fee_schedule, limit_rulebook, limit_use, price
from api.service.auth import Caller, authenticate
from api.service.correction import answer, decide, propose
from api.service.correction.propose import CorrectionOrder
from api.service.forced_end.answer import list_decisions
from api.service.forced_end.decide import approve_decision
from api.service.forced_end.propose import DecisionOrder, propose_decision
from api.service.reconciliation import resolve, run
from engine.contracts import workflow_ids
from engine.contracts.correction import DecideCorrection, Decision, Proposal
from engine.domain.correction import CorrectionKind, CorrectionStatus
from engine.domain.errors import Conflict, Invalid, NotFound, Unavailable
from engine.domain.forced_end import DecisionEnd
from engine.domain.ids import CorrectionId, PaymentId
from engine.domain.money import Msat
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, running_api

pytestmark = pytest.mark.integration

FEES = {"internal": [{"flat_msat": 500}]}


class MadeUpTemporal:
    """Runs the activities of a correction as its workflow would; every other workflow is known and says no."""

    def __init__(self, api: Api) -> None:
        self._corrections = Corrections(api.resources.pool)
        self.started: list[str] = []

    async def start_workflow(self, _name: str, asked: object, *, id: str, **_: object) -> "MadeUpTemporal":  # noqa: A002 - the SDK's name
        if id in self.started:
            raise WorkflowAlreadyStartedError(id, "x", run_id="run-1")
        self.started.append(id)
        if isinstance(asked, Proposal):
            await self._corrections.propose_correction(asked)
        self.id = id
        return self

    def get_workflow_handle(self, workflow_id: str, **_: object) -> "MadeUpTemporal":
        self.id = workflow_id
        return self

    async def execute_update(self, _update: object, decision: Decision) -> None:
        correction = CorrectionId(self.id.removeprefix("correction-"))
        await self._corrections.decide_correction(DecideCorrection(correction=correction, decision=decision))
        if decision.approve:
            await self._corrections.post_correction(correction)


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as running:
        running.change(temporal=MadeUpTemporal(running))
        yield running


async def operator(api: Api, *scopes: str) -> Caller:
    opened = await api.open_account(scopes)
    return await authenticate(api.resources, opened.headers["Authorization"].removeprefix("Bearer "))


def order(key: str = "k", **changed: Any) -> CorrectionOrder:
    asked: dict[str, Any] = {
        "kind": CorrectionKind.CORRECTION,
        "debit": "suspense:in",
        "credit": "income:ln-fee",
        "amount_msat": Msat(1000),
        "reason": "counted again",
    }
    return CorrectionOrder(key=key, body_hash=b"\1" * 32, **(asked | changed))


async def test_a_correction_is_proposed_once_and_approved_by_another_person(api: Api) -> None:
    carol, dave = await operator(api, "finance"), await operator(api, "finance")
    proposed = await propose.propose_correction(api.resources, carol, order())
    again = await propose.propose_correction(api.resources, carol, order())
    assert (proposed.is_replay, again.is_replay) == (False, True)
    assert proposed.content == again.content
    correction_id = proposed.content.id
    with pytest.raises(Forbidden, match="another operator must"):
        await decide.approve_correction(api.resources, carol, correction_id)
    posted = await decide.approve_correction(api.resources, dave, correction_id, note="seen")
    assert (posted.status, posted.approved_by) == (CorrectionStatus.POSTED, dave.owner)
    assert await decide.approve_correction(api.resources, dave, correction_id) == posted, "a repeat"
    with pytest.raises(Conflict, match="posted already"):
        await decide.reject_correction(api.resources, carol, correction_id, reason="no")
    assert await answer.show_correction(api.resources, carol, correction_id) == posted
    found = await answer.list_corrections(api.resources, dave, CorrectionStatus.POSTED, limit=10)
    assert [each.id for each in found.rows] == [correction_id]


async def test_a_key_from_the_proposers_account_approves_nothing(api: Api) -> None:
    carol = await operator(api, "finance", "admin")
    proposed = await propose.propose_correction(api.resources, carol, order())
    made = await api.http.post(
        f"/v1/accounts/{(await api.open_account()).id}/api-keys",
        json={"name": "hers", "scopes": ["finance"]},
        headers={"Authorization": f"Bearer {await api.make_key(carol.account_id, ('admin',))}"},
    )
    hers = await authenticate(api.resources, made.json()["key"])
    assert hers.owner != carol.owner
    with pytest.raises(Forbidden) as refusal:
        await decide.approve_correction(api.resources, hers, proposed.content.id)
    assert refusal.value.code == "own_proposal"


async def test_a_rejected_correction_has_moved_nothing(api: Api) -> None:
    carol = await operator(api, "finance")
    proposed = await propose.propose_correction(api.resources, carol, order())
    rejected = await decide.reject_correction(api.resources, carol, proposed.content.id, reason="taken back")
    assert (rejected.status, rejected.transfers) == (CorrectionStatus.REJECTED, [])


@pytest.mark.parametrize(("changed", "field"), [({"credit": "income:none"}, "credit"), ({"case_id": "x"}, "case_id")])
async def test_a_proposal_names_what_exists(api: Api, changed: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await propose.propose_correction(api.resources, await operator(api, "finance"), order(**changed))
    assert refusal.value.fields["field"] == field


async def test_capital_is_for_the_treasury(api: Api) -> None:
    capital = order(kind=CorrectionKind.CAPITAL, debit="asset:none", credit="equity:capital")
    with pytest.raises(Forbidden, match="'capital' needs"):
        await propose.propose_correction(api.resources, await operator(api, "finance"), capital)


async def test_a_payment_that_is_not_there_is_not_ended(api: Api) -> None:
    carol = await operator(api, "finance")
    asked = DecisionOrder(payment_id=PaymentId("pay_none"), end=DecisionEnd.FAILED, reason="lost")
    with pytest.raises(NotFound):
        await propose_decision(api.resources, carol, asked)
    with pytest.raises(NotFound):
        await approve_decision(api.resources, carol, "dec_none")
    with pytest.raises(Forbidden):
        await propose_decision(api.resources, await operator(api, "treasury"), asked)
    assert (await list_decisions(api.resources, carol, limit=10)).rows == []


async def test_a_reconciliation_with_a_key_is_started_once(api: Api) -> None:
    carol = await operator(api, "finance")
    started, is_new = await run.start_reconciliation(api.resources, carol, "k")
    assert (is_new, started.workflow_id) == (True, workflow_ids.asked_reconciliation(carol.owner, "k"))
    assert await run.start_reconciliation(api.resources, carol, "k") == (
        started.model_copy(update={"id": "rec_run1"}),
        False,
    )
    with pytest.raises(NotFound):
        await run.show_run(api.resources, carol, "rec_none")
    with pytest.raises(NotFound):
        await resolve.resolve_case(api.resources, carol, "case_none", reason="x")


async def test_a_silent_temporal_is_told_as_that(api: Api) -> None:
    class Away:
        async def start_workflow(self, *_what: object, **_how: object) -> None:
            raise RuntimeError("away")

    api.change(temporal=Away())
    carol = await operator(api, "finance")
    with pytest.raises(Unavailable):
        await run.start_reconciliation(api.resources, carol)
    with pytest.raises(Unavailable):
        await propose.propose_correction(api.resources, carol, order())


async def test_a_limit_in_dollars_needs_a_price_first(api: Api) -> None:
    clerk, treasurer = await operator(api, "finance"), await operator(api, "treasury")
    limits = {"levels": {"0": {"lightning": {"day": {"USD": "1000.00"}}}}}
    version = (await limit_rulebook.show_limit_rulebook(api.resources, clerk)).version + 1
    with pytest.raises(Invalid, match="never was a price in USD"):
        await limit_rulebook.set_limit_rulebook(api.resources, clerk, limits, version=version, note="x")
    assert (await price.set_price(api.resources, treasurer, "USD", "64250.1")).price == "64250.10"
    edition = await limit_rulebook.set_limit_rulebook(api.resources, clerk, limits, version=version, note="x")
    assert (edition.version, edition.set_by) == (version, clerk.owner)
    user = await operator(api, "read")
    (shown,) = (await limit_use.show_limits(api.resources, user)).items
    assert shown.model_dump()["remaining"] == "1000.00"
    with pytest.raises(Forbidden):
        await price.set_price(api.resources, clerk, "USD", "1")


async def test_fees_are_tried_and_set(api: Api) -> None:
    clerk = await operator(api, "finance")
    in_force = await fee_schedule.show_fees(api.resources, clerk)
    tried = await fee_schedule.preview_fee(api.resources, clerk, "internal", Msat(10_000), content=FEES)
    assert (tried.version, tried.fee_msat) == (None, 500)
    edition = await fee_schedule.set_fees(api.resources, clerk, FEES, version=in_force.version + 1, note="x")
    assert await fee_schedule.show_fees(api.resources, clerk, edition.version) == edition
    assert (await fee_schedule.preview_fee(api.resources, clerk, "internal", Msat(1))).version == edition.version
    with pytest.raises(NotFound):
        await fee_schedule.show_fees(api.resources, clerk, 99)
