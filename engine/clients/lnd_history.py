"""What an LND node remembers, for whoever holds it against the books: payments, receipts, channel and chain changes.

Read-only, page by page. Payments and invoices are found by when they were created, which is what LND can search by.
"""

from dataclasses import dataclass

from engine.clients.lnd_channel import open_channel, translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.lightning_pb2_grpc import LightningStub
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat, Sat, sat_to_msat
from engine.settings import NodeSettings

_CALL_TIMEOUT_S = 30
_PAGE = 1000
_NEWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidOut:
    """A payment that the node made, to the end."""

    payment_hash: PaymentHash
    total_msat: Msat
    """Amount and fee."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidIn:
    """An invoice that the node was paid for."""

    payment_hash: PaymentHash
    received_msat: Msat
    settled_at_s: int
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """Something that moved money between the accounts of a node: a channel's end or beginning, a transaction."""

    kind: str
    ref: str
    amount_msat: int
    """As the node tells it: what it got, or less than zero what left its wallet."""


class LndHistory:
    """One node's memory. Create it in the process that uses it."""

    def __init__(self, name: NodeName, settings: NodeSettings) -> None:
        self.name = name
        self._channel = open_channel(settings)
        self._lightning = LightningStub(self._channel)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close(None)

    async def list_paid_out(self, created_after_s: int) -> list[PaidOut]:
        """Every payment that succeeded, of those begun since then."""
        paid: list[PaidOut] = []
        offset = 0
        while True:
            request = ln.ListPaymentsRequest(
                index_offset=offset, max_payments=_PAGE, creation_date_start=created_after_s, omit_hops=True
            )
            with translated(self.name):
                page = await self._lightning.ListPayments(request, timeout=_CALL_TIMEOUT_S)
            paid += [
                PaidOut(
                    payment_hash=PaymentHash(payment.payment_hash),
                    total_msat=Msat(payment.value_msat + payment.fee_msat),
                )
                for payment in page.payments
                if payment.status == ln.Payment.SUCCEEDED
            ]
            if len(page.payments) < _PAGE:
                return paid
            offset = page.last_index_offset

    async def list_paid_in(self, created_after_s: int) -> list[PaidIn]:
        """Every invoice that was settled, of those made since then."""
        paid: list[PaidIn] = []
        offset = 0
        while True:
            request = ln.ListInvoiceRequest(
                index_offset=offset, num_max_invoices=_PAGE, creation_date_start=created_after_s
            )
            with translated(self.name):
                page = await self._lightning.ListInvoices(request, timeout=_CALL_TIMEOUT_S)
            paid += [
                PaidIn(
                    payment_hash=PaymentHash(invoice.r_hash.hex()),
                    received_msat=Msat(invoice.amt_paid_msat),
                    settled_at_s=invoice.settle_date,
                )
                for invoice in page.invoices
                if invoice.state == ln.Invoice.SETTLED
            ]
            if len(page.invoices) < _PAGE:
                return paid
            offset = page.last_index_offset

    async def list_changes(self, after_s: int) -> list[NodeChange]:
        """The newest of each kind: channels closed or about to open or close, transactions of the wallet since then."""
        with translated(self.name):
            closed = await self._lightning.ClosedChannels(ln.ClosedChannelsRequest(), timeout=_CALL_TIMEOUT_S)
            pending = await self._lightning.PendingChannels(ln.PendingChannelsRequest(), timeout=_CALL_TIMEOUT_S)
            wallet = await self._lightning.GetTransactions(
                ln.GetTransactionsRequest(max_transactions=_PAGE), timeout=_CALL_TIMEOUT_S
            )
        ended = sorted(closed.channels, key=lambda channel: channel.close_height, reverse=True)[:_NEWEST]
        moved = sorted(wallet.transactions, key=lambda transaction: transaction.time_stamp, reverse=True)[:_NEWEST]
        opening = [each.channel for each in pending.pending_open_channels]
        closing = [
            *(each.channel for each in pending.pending_force_closing_channels),
            *(each.channel for each in pending.waiting_close_channels),
        ]
        return [
            *(_change("closed_channel", each.channel_point, each.settled_balance) for each in ended),
            *(_change("opening_channel", each.channel_point, each.local_balance) for each in opening[:_NEWEST]),
            *(_change("closing_channel", each.channel_point, each.local_balance) for each in closing[:_NEWEST]),
            *(_change("transaction", each.tx_hash, each.amount) for each in moved if each.time_stamp >= after_s),
        ]


def _change(kind: str, ref: str, amount_sat: int) -> NodeChange:
    amount_msat = sat_to_msat(Sat(abs(amount_sat)))
    return NodeChange(kind=kind, ref=ref, amount_msat=amount_msat if amount_sat >= 0 else -amount_msat)
