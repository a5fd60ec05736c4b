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
from activities.chain import deposit, deposit_decision
from activities.chain import pump as chain_pump
from activities.chain.pool import PoolKeeper
from activities.chain.wake import Waker
from activities.reconciliation import place, reconciliation
from activities.sending import sending
from engine.bank.in_flight import Caps
from engine.clients.announcements import Announcer
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.lnd.client import LndNode
from engine.clients.lnd.history import LndHistory
from engine.clients.lnd.route import LndRoutes
from engine.domain.ids import NodeName
from engine.ledger.chart import Chart
from engine.ledger.database import Pool
from engine.settings import NodeSettings, WorkerSettings


class NodeClients:
    """The clients of one node, and the sending that uses them, once per process."""

    def __init__(self, name: NodeName, settings: NodeSettings, pool: Pool) -> None:
        self.name = name
        self.node = LndNode(name, settings)
        self.history = LndHistory(name, settings)
        self.routes = LndRoutes(name, settings)
        self.sending = sending.Sending(self.node, pool)

    @property
    def channels(self) -> tuple[LndNode, LndHistory, LndRoutes]:
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
        deposit_decision.DepositDecisions(pool, chart),
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


def onchain_activities(
    client: Client, pool: Pool, bitcoind: Bitcoind, settings: WorkerSettings
) -> list[Callable[..., Any]]:
    """Those of the queue `onchain`: everything that calls bitcoind."""
    keeper = PoolKeeper(
        bitcoind, pool, wallet=settings.hot_wallet, size=settings.address_pool, address_type=settings.address_type
    )
    return activities_of(
        chain_pump.ChainPump(
            bitcoind,
            pool,
            network=settings.bitcoin_network,
            waker=Waker(pool, client, settings.deposits_together),
            announcements=settings.bitcoind_zmq,
            keeper=keeper,
        ),
    )


def activities_of(*implementations: object) -> list[Callable[..., Any]]:
    """What the contracts of these objects declare, bound to the objects."""
    return [
        getattr(each, name)
        for each in implementations
        for contract in type(each).__bases__
        for name in sorted(getattr(contract, "__abstractmethods__", ()))
    ]
