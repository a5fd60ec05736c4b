"""The figures of the books as gauges for Prometheus: ages and not times, so an alert needs no clock of its own."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.views.metrics import Figures

_DEPOSITS = ("pending", "credited", "reversed", "below_minimum", "held", "unattributed")
_WITHDRAWALS, _SPEEDS = ("queued", "batched", "broadcast"), ("fast", "standard", "slow")
_PAYOUTS = ("planned", "signed", "broadcast", "confirmed")
_STATUSES = ("clean", "explained", "differs", "incomplete")


class BookGauges(Collector):
    """What one reading of the books found, with the connections of this process."""

    def __init__(self, figures: Figures | None, *, size: int, idle: int) -> None:
        self._figures, self._size, self._idle = figures, size, idle

    def collect(self) -> Iterator[Metric]:
        """As Prometheus asks for it."""
        yield _gauge(
            "postgres_connections", "Of this process.", "state", {"idle": self._idle, "used": self._size - self._idle}
        )
        yield GaugeMetricFamily("millrace_books_up", "1 while Postgres answers.", value=int(self._figures is not None))
        if self._figures is not None:
            yield from _of_books(self._figures)
            yield from _of_chains(self._figures)
            yield from _of_deposits(self._figures)
            yield from _of_withdrawals(self._figures)
            yield from _of_payouts(self._figures)
            yield from _of_reconciliation(self._figures)


def _of_books(figures: Figures) -> Iterator[Metric]:
    def per_node(name: str, about: str, field: str) -> Metric:
        return _gauge(name, about, "node", {node.name: getattr(node, field) for node in figures.nodes})

    yield per_node("payments_in_flight", "Payments whose end is not known.", "payments_in_flight")
    yield per_node("payments_in_flight_oldest_seconds", "Age of the oldest; 0: none.", "oldest_payment_s")
    yield per_node("invoices_open", "Invoices that can still be paid.", "open_invoices")
    yield per_node("node_report_age_seconds", "Since the node said that it is alive.", "report_age_s")
    yield per_node("node_outbound_msat", "What the node could send.", "outbound_msat")
    yield per_node("node_inbound_msat", "What the node could receive.", "inbound_msat")
    yield _gauge("rulebook_version", "The version in force.", "name", figures.rulebooks)
    yield GaugeMetricFamily("millrace_held_msat", "Held for payments in flight.", value=figures.held_msat)


def _of_chains(figures: Figures) -> Iterator[Metric]:
    chains = figures.chains
    yield _gauge("chain_height", "The last block that was followed.", "wallet", {c.wallet: c.height for c in chains})
    ages = {chain.wallet: chain.report_age_s for chain in chains}
    yield _gauge("chain_report_age_seconds", "Since the pump last reported.", "wallet", ages)
    reasons = {chain.problem: 1 for chain in chains if chain.problem is not None}
    yield _gauge("chain_problem", "1 while bitcoind cannot be followed, by reason.", "reason", reasons)
    if chains:
        yield GaugeMetricFamily("millrace_address_pool", "Addresses that are ready.", value=figures.ready_addresses)


def _of_deposits(figures: Figures) -> Iterator[Metric]:
    """A status that no deposit has is 0, so that an alert ends."""
    found = {each.status: each for each in figures.deposits}
    counts = {status: found[status].count if status in found else 0 for status in _DEPOSITS}
    sums = {status: found[status].amount_msat if status in found else 0 for status in _DEPOSITS}
    yield _gauge("deposits", "Watched, or waiting for an operator.", "status", counts)
    yield _gauge("deposits_msat", "The sum of these deposits.", "status", sums)
    oldest_s = found["pending"].oldest_s if "pending" in found else 0
    yield GaugeMetricFamily("millrace_deposit_oldest_pending_seconds", "Age of the oldest; 0: none.", value=oldest_s)
    yield GaugeMetricFamily("millrace_deposits_incoming_msat", "Shown as incoming.", value=figures.incoming_msat)
    owed = figures.receivables
    yield GaugeMetricFamily("millrace_receivables", "Receivables that are open.", value=owed.count)
    yield GaugeMetricFamily("millrace_receivables_msat", "What users owe by them.", value=owed.amount_msat)


def _of_withdrawals(figures: Figures) -> Iterator[Metric]:
    """A status or a speed that no withdrawal has is 0, so that an alert ends."""
    found = figures.withdrawals
    counts = {status: sum(each.count for each in found if each.status == status) for status in _WITHDRAWALS}
    held = {status: sum(each.held_msat for each in found if each.status == status) for status in _WITHDRAWALS}
    queued = [each for each in found if each.status == "queued"]
    oldest_s = {speed: max((e.oldest_s for e in queued if e.speed == speed), default=0) for speed in _SPEEDS}
    waiting = {"approval": sum(e.unapproved for e in queued), "resume": sum(e.on_hold for e in queued)}
    yield _gauge("withdrawals", "That have not ended.", "status", counts)
    yield _gauge("withdrawals_msat", "Amounts and fees of these withdrawals.", "status", held)
    yield _gauge("withdrawal_oldest_queued_seconds", "Age of the oldest; 0: none.", "speed", oldest_s)
    yield _gauge("withdrawals_waiting", "That wait for an operator.", "for", waiting)


def _of_payouts(figures: Figures) -> Iterator[Metric]:
    """As withdrawals."""
    found = {each.status: each for each in figures.payouts}
    counts = {status: found[status].count if status in found else 0 for status in _PAYOUTS}
    oldest_s = {status: found[status].oldest_s if status in found else 0 for status in _PAYOUTS}
    waiting = {"problem": sum(e.problems for e in figures.payouts), "resume": sum(e.on_hold for e in figures.payouts)}
    yield _gauge("payouts", "That are followed.", "status", counts)
    yield _gauge("payout_oldest_seconds", "Age of the oldest; 0: none.", "status", oldest_s)
    yield _gauge("payouts_waiting", "That wait for an operator.", "for", waiting)
    reserved = figures.reserved_coins
    yield GaugeMetricFamily("millrace_reserved_coins", "Coins promised to payouts.", value=reserved)


def _of_reconciliation(figures: Figures) -> Iterator[Metric]:
    found = figures.reconciliation
    yield _gauge("cases_open", "Differences that wait for an operator's word.", "kind", found.open_cases)
    if found.status is None:
        return
    yield GaugeMetricFamily("millrace_reconciliation_age_seconds", "Since the last run ended.", value=found.age_s)
    statuses = {status: int(status == found.status) for status in _STATUSES}
    yield _gauge("reconciliation_status", "1 for how the last run ended.", "status", statuses)
    differences = found.differences_msat
    yield _gauge("reconciliation_difference_msat", "Books less place less in flight.", "account", differences)


def _gauge(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"millrace_{name}", about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
