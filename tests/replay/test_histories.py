"""Histories of real runs against the workflow code of today: whatever is under way when we deploy must go on.

A file is named after its workflow's capability and story. A failure here means that the change would strand running
payments: use `workflow.patched`, keep the old history, and add the new one with `python -m tests.replay.record`.
"""

import asyncio
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from engine.contracts.converter import DATA_CONVERTER
from workflows.batch import BatchWorkflow
from workflows.batcher import BatcherWorkflow
from workflows.chain import ChainPumpWorkflow
from workflows.correction import CorrectionWorkflow
from workflows.deposit import DepositPageWorkflow, DepositWorkflow
from workflows.invoice import InvoiceSweepWorkflow, ReceiptPageWorkflow, ReceiveWorkflow
from workflows.janitor import JanitorWorkflow
from workflows.lane import LaneWorkflow
from workflows.node import AdoptNodeWorkflow
from workflows.payment import PaymentWorkflow
from workflows.payout import PayoutWorkflow
from workflows.pump import LndPumpWorkflow
from workflows.quote import QuoteWorkflow
from workflows.reconciliation import CaseWorkflow, ReconciliationWorkflow
from workflows.withdrawal import WithdrawalWorkflow

pytestmark = pytest.mark.replay

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_the_code_of_today_takes_the_same_way(path: Path) -> None:
    history = await asyncio.to_thread(path.read_text)
    replayer = Replayer(
        workflows=[
            PaymentWorkflow,
            DepositWorkflow,
            DepositPageWorkflow,
            ChainPumpWorkflow,
            ReceiveWorkflow,
            ReceiptPageWorkflow,
            InvoiceSweepWorkflow,
            LndPumpWorkflow,
            AdoptNodeWorkflow,
            ReconciliationWorkflow,
            CaseWorkflow,
            CorrectionWorkflow,
            LaneWorkflow,
            BatchWorkflow,
            QuoteWorkflow,
            JanitorWorkflow,
            WithdrawalWorkflow,
            BatcherWorkflow,
            PayoutWorkflow,
        ],
        data_converter=DATA_CONVERTER,
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(path.stem, json.loads(history)))


SETTLED = (Path(__file__).parent / "histories" / "payment-settled.json").read_text()


async def test_a_history_of_another_way_is_noticed() -> None:
    """The check can fail: a settled payment's history in which the money was released does not fit the code."""
    text = SETTLED.replace('"send_payment"', '"watch_payment"')
    replayer = Replayer(workflows=[PaymentWorkflow], data_converter=DATA_CONVERTER)
    with pytest.raises(Exception, match=r"[Nn]ondeterminism"):
        await replayer.replay_workflow(WorkflowHistory.from_json("payment-settled", json.loads(text)))
