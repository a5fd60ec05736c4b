"""The activities of each task queue, made and bound to what they work with."""

from collections.abc import Callable, Sequence
from typing import Any

from temporalio.client import Client

from activities import (
    batch,
    correction,
    direct_send,
    forced_end,
    invoice,
    invoice_sweep,
    janitor,
    lane,
    node,
    payment,
    pump,
    quote,
)
from activities.deposit import decision, deposit
from activities.reconciliation import place, reconciliation
from activities.sending import sending
from activities.withdrawal import withdrawal
from engine.bank.in_flight import Caps
from engine.clients.announcements import Announcer
from engine.clients.lnd import client, history, route
from engine.domain.ids import NodeName
from engine.ledger.chart import Chart
from engine.ledger.database import Pool
from engine.settings import NodeSettings, WorkerSettings


class NodeClients:
    """The clients of one node, and the sending that uses them, once per process."""

    def __init__(self, name: NodeName, settings: NodeSettings, pool: Pool) -> None:
        self.name = name
        self.node = client.LndNode(name, settings)
        self.history = history.LndHistory(name, settings)
        self.routes = route.LndRoutes(name, settings)
        self.sending = sending.Sending(self.node, pool)

    @property
    def channels(self) -> tuple[client.LndNode, history.LndHistory, route.LndRoutes]:
        """To be closed, each by itself."""
        return self.node, self.history, self.routes


def payment_activities(
    client: Client, pool: Pool, nodes: Sequence[NodeClients], announcer: Announcer, settings: WorkerSettings
) -> list[Callable[..., Any]]:
    """Those of the queue `payments`: the ledger's."""
    chart = Chart()
    caps = Caps(per_account=settings.max_in_flight_per_account, per_node=settings.max_in_flight_per_node)
    sendings = {each.name: each.sending for each in nodes}
    direct = direct_send.DirectSend(sendings, most=settings.workflow_task_slots * 3 // 4)
    payments = payment.Payments(pool, chart, caps, direct)
    return activities_of(
        payments,
        lane.Lanes(pool, chart, payments, announcer),
        batch.Batches(pool, chart),
        invoice.Receipts(pool, chart),
        node.NodeBooks(pool, chart),
        reconciliation.Reconciliations(pool),
        correction.Corrections(pool),
        janitor.Janitor(pool, client),
        deposit.Deposits(pool, chart),
        decision.DepositDecisions(pool, chart),
        withdrawal.Withdrawals(pool, chart),
    )


def node_activities(
    client: Client, pool: Pool, clients: NodeClients, settings: WorkerSettings
) -> list[Callable[..., Any]]:
    """Those of the queue of one node: everything that calls it."""
    return activities_of(
        clients.sending,
        forced_end.Decisions(clients.node, pool, Chart()),
        invoice_sweep.InvoiceSweep(clients.node, pool, client),
        pump.Pump(clients.node, pool, client, settings.receipts_together),
        quote.Quotes(clients.routes),
        node.NodePositions(clients.node),
        place.PlaceReconciliations(clients.node, clients.history, pool, client),
    )


def activities_of(*implementations: object) -> list[Callable[..., Any]]:
    """What the contracts of these objects declare, bound to the objects."""
    return [
        getattr(each, name)
        for each in implementations
        for contract in type(each).__bases__
        for name in sorted(getattr(contract, "__abstractmethods__", ()))
    ]
