"""What an LND node remembers, for reconciliation: payments, receipts, channel and chain changes.

Read-only, page by page. Payments and invoices are found by their creation time, because LND can search by that. What
ends while somebody reads comes over two streams, so that nothing needs to stand still for the length of a list.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from engine.clients.lnd.grpc_channel import open_channel, translated
from engine.clients.lnd.settled import read_settled
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.lightning_pb2_grpc import LightningStub
from engine.clients.lndrpc.routerrpc import router_pb2, router_pb2_grpc
from engine.domain.errors import Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat, Sat, sat_to_msat
from engine.settings import NodeSettings

_CALL_TIMEOUT_S = 30
_PAGE = 1000
_NEWEST = 10
_STAGES = {number: name.lower() for name, number in ln.ChannelCloseSummary.ClosureType.items()}
"""A later LND may give a number that has no name here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidOut:
    """A payment that the node has made and that succeeded."""

    payment_hash: PaymentHash
    total_msat: Msat
    """What the payee has got, plus the routing fee."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidIn:
    """An invoice that the node was paid for."""

    payment_hash: PaymentHash
    received_msat: Msat
    settled_at_s: int
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """Something that moved money between the accounts of a node: a channel opened or closed, or a transaction."""

    kind: str
    ref: str
    amount_msat: int
    """As the node reports it: what it got, or, below zero, what left its wallet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEnd:
    """How far the closing of a channel has come."""

    point: str
    stage: str
    """waiting_close, pending_force_close, or LND's name of how it was closed: cooperative_close, local_force_close …"""
    closing_txid: str
    balance_sat: Sat
    """Our balance at the end, in whole satoshi. After a cooperative close: what its transaction paid us."""
    close_fee_sat: Sat
    """What a channel that we opened paid for its cooperative close; else 0."""
    moves: tuple[NodeChange, ...]
    """What came to the node's wallet: the closing transaction itself, or those that sweep its outputs."""


@dataclass(slots=True)
class News:
    """What has ended since the block of `follow` began."""

    paid_out: dict[PaymentHash, PaidOut] = field(default_factory=dict[PaymentHash, PaidOut])
    paid_in: dict[PaymentHash, PaidIn] = field(default_factory=dict[PaymentHash, PaidIn])
    streams: tuple[asyncio.Task[None], ...] = ()

    def count(self) -> int:
        """How much has ended so far. Raises what has broken a stream, because then nothing more is received."""
        for stream in self.streams:
            if stream.done():
                stream.result()
        return len(self.paid_out) + len(self.paid_in)


class LndHistory:
    """One node's memory. Create it in the process that uses it."""

    def __init__(self, name: NodeName, settings: NodeSettings) -> None:
        self.name = name
        self._channel = open_channel(settings)
        self._lightning = LightningStub(self._channel)
        self._router = router_pb2_grpc.RouterStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def list_paid_out(self, created_after_s: int) -> list[PaidOut]:
        """Every payment created since then that has succeeded."""
        paid: list[PaidOut] = []
        offset = 0
        while True:
            request = ln.ListPaymentsRequest(
                index_offset=offset, max_payments=_PAGE, creation_date_start=created_after_s, omit_hops=True
            )
            with translated(self.name):
                page = await self._lightning.ListPayments(request, timeout=_CALL_TIMEOUT_S)
            paid += [_paid_out(payment) for payment in page.payments if payment.status == ln.Payment.SUCCEEDED]
            if len(page.payments) < _PAGE:
                return paid
            offset = page.last_index_offset

    async def list_paid_in(self, created_after_s: int) -> list[PaidIn]:
        """Every invoice created since then that was settled."""
        paid: list[PaidIn] = []
        offset = 0
        while True:
            request = ln.ListInvoiceRequest(
                index_offset=offset, num_max_invoices=_PAGE, creation_date_start=created_after_s
            )
            with translated(self.name):
                page = await self._lightning.ListInvoices(request, timeout=_CALL_TIMEOUT_S)
            paid += [_paid_in(invoice) for invoice in page.invoices if invoice.state == ln.Invoice.SETTLED]
            if len(page.invoices) < _PAGE:
                return paid
            offset = page.last_index_offset

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[News]:
        """What ends while the block runs. The first moment may be missed: nothing says when the node begins to send."""
        news = News()
        news.streams = (asyncio.create_task(self._follow_out(news)), asyncio.create_task(self._follow_in(news)))
        try:
            yield news
        finally:
            for stream in news.streams:
                stream.cancel()
            await asyncio.gather(*news.streams, return_exceptions=True)

    async def _follow_out(self, news: News) -> None:
        with translated(self.name):
            async for payment in self._router.TrackPayments(router_pb2.TrackPaymentsRequest(no_inflight_updates=True)):
                if payment.status == ln.Payment.SUCCEEDED:
                    paid = _paid_out(payment)
                    news.paid_out[paid.payment_hash] = paid
        raise Unavailable(f"{self.name} closed its stream of payments")

    async def _follow_in(self, news: News) -> None:
        with translated(self.name):
            async for invoice in self._lightning.SubscribeInvoices(ln.InvoiceSubscription()):
                if invoice.state == ln.Invoice.SETTLED:
                    paid = _paid_in(invoice)
                    news.paid_in[paid.payment_hash] = paid
        raise Unavailable(f"{self.name} closed its stream of invoices")

    async def list_ends(self, points: Collection[str]) -> list[ChannelEnd]:
        """What has become of these channels. Open channels, and channels that the node does not know, are left out."""
        with translated(self.name):
            pending = await self._lightning.PendingChannels(ln.PendingChannelsRequest(), timeout=_CALL_TIMEOUT_S)
            closed = await self._lightning.ClosedChannels(ln.ClosedChannelsRequest(), timeout=_CALL_TIMEOUT_S)
            wallet = await self._lightning.GetTransactions(
                ln.GetTransactionsRequest(max_transactions=_PAGE), timeout=_CALL_TIMEOUT_S
            )
        ending = [("waiting_close", each.channel, each.closing_txid) for each in pending.waiting_close_channels] + [
            ("pending_force_close", each.channel, each.closing_txid) for each in pending.pending_force_closing_channels
        ]
        return [
            *(
                ChannelEnd(
                    point=channel.channel_point,
                    stage=stage,
                    closing_txid=txid,
                    balance_sat=Sat(channel.local_balance),
                    close_fee_sat=Sat(0),
                    moves=_moves(txid, wallet.transactions),
                )
                for stage, channel, txid in ending
                if channel.channel_point in points
            ),
            *(_ended(each, wallet.transactions) for each in closed.channels if each.channel_point in points),
        ]

    async def list_changes(self, after_s: int) -> list[NodeChange]:
        """The newest changes of each kind: closed, opening and closing channels, and wallet transactions since then."""
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


def _paid_out(payment: ln.Payment) -> PaidOut:
    return PaidOut(payment_hash=PaymentHash(payment.payment_hash), total_msat=read_settled(payment).total_msat)


def _paid_in(invoice: ln.Invoice) -> PaidIn:
    return PaidIn(
        payment_hash=PaymentHash(invoice.r_hash.hex()),
        received_msat=Msat(invoice.amt_paid_msat),
        settled_at_s=invoice.settle_date,
    )


def _ended(channel: ln.ChannelCloseSummary, wallet: Sequence[ln.Transaction]) -> ChannelEnd:
    closing = next((each for each in wallet if each.tx_hash == channel.closing_tx_hash), None)
    fee_sat = 0
    if (
        channel.close_type == ln.ChannelCloseSummary.COOPERATIVE_CLOSE
        and channel.open_initiator == ln.INITIATOR_LOCAL
        and closing is not None
    ):
        fee_sat = channel.capacity - sum(output.amount for output in closing.output_details)
    return ChannelEnd(
        point=channel.channel_point,
        stage=_STAGES.get(channel.close_type, f"closed_{channel.close_type}"),
        closing_txid=channel.closing_tx_hash,
        balance_sat=Sat(channel.settled_balance),
        close_fee_sat=Sat(fee_sat),
        moves=_moves(channel.closing_tx_hash, wallet),
    )


def _moves(closing_txid: str, wallet: Sequence[ln.Transaction]) -> tuple[NodeChange, ...]:
    """The wallet's transactions that are the closing one, or spend outputs that it left outside of the wallet."""
    return tuple(
        _change("closing" if each.tx_hash == closing_txid else "sweep", each.tx_hash, each.amount)
        for each in wallet
        if each.amount != 0
        and (
            each.tx_hash == closing_txid
            or any(
                spent.outpoint.startswith(f"{closing_txid}:") and not spent.is_our_output
                for spent in each.previous_outpoints
            )
        )
    )


def _change(kind: str, ref: str, amount_sat: int) -> NodeChange:
    amount_msat = sat_to_msat(Sat(abs(amount_sat)))
    return NodeChange(kind=kind, ref=ref, amount_msat=amount_msat if amount_sat >= 0 else -amount_msat)
