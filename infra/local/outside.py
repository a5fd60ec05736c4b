"""The world around the bank, for tests and the demo: nodes and a chain that are not ours.

    async with outside(stack, "outside-2") as shop:
        request = await shop.invoice(21_000)
        await shop.pay(bolt11)

Every call takes and gives millisatoshi. Admin rights: this is never part of the product. From a shell, with outside-2:
`./run outside invoice 21000` and `./run outside pay lnbcrt…`.
"""

import asyncio
import hashlib
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

import grpc

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.invoicesrpc import invoices_pb2 as inv
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from infra.local import services
from infra.local.bitcoin_rpc import MINER, BitcoinRpc
from infra.local.home import NODES
from infra.local.lightning import Stubs, connect
from infra.local.network import Network
from infra.local.parts.store import Failed
from infra.local.stack import Stack

PAY_LIMIT_S = 60


@dataclass(frozen=True)
class HoldInvoice:
    """An invoice whose payment is held until it is settled with the preimage, or cancelled."""

    bolt11: str
    payment_hash: bytes
    preimage: bytes


class PaymentFailed(Exception):
    """The outside node could not pay; the message is LND's reason."""


class Outside:
    """One node with all rights."""

    def __init__(self, stubs: Stubs) -> None:
        self.stubs = stubs

    async def invoice(
        self,
        amount_msat: int,
        *,
        memo: str = "",
        expiry_s: int = 3600,
        private: bool = False,
        description_hash: bytes = b"",
    ) -> str:
        """A new invoice; 0 leaves the amount to the payer."""
        request = ln.Invoice(
            value_msat=amount_msat, memo=memo, expiry=expiry_s, private=private, description_hash=description_hash
        )
        return (await self.stubs.lightning.AddInvoice(request)).payment_request

    async def hold_invoice(self, amount_msat: int, *, memo: str = "", expiry_s: int = 3600) -> HoldInvoice:
        """An invoice that takes a payment and keeps it in flight."""
        preimage = secrets.token_bytes(32)
        payment_hash = hashlib.sha256(preimage).digest()
        request = inv.AddHoldInvoiceRequest(hash=payment_hash, value_msat=amount_msat, memo=memo, expiry=expiry_s)
        added = await self.stubs.invoices.AddHoldInvoice(request)
        return HoldInvoice(added.payment_request, payment_hash, preimage)

    async def settle(self, held: HoldInvoice) -> None:
        """Release the preimage: the payment is settled."""
        await self.stubs.invoices.SettleInvoice(inv.SettleInvoiceMsg(preimage=held.preimage))

    async def cancel(self, payment_hash: bytes) -> None:
        """Send a held payment back, or close an invoice that was not paid."""
        await self.stubs.invoices.CancelInvoice(inv.CancelInvoiceMsg(payment_hash=payment_hash))

    async def look_up(self, payment_hash: bytes) -> ln.Invoice:
        """An invoice of this node; its `state` is OPEN, ACCEPTED (held), SETTLED or CANCELED."""
        return await self.stubs.lightning.LookupInvoice(ln.PaymentHash(r_hash=payment_hash))

    async def accepted(self, held: HoldInvoice) -> None:
        """Wait until the payment of a hold invoice has come. Raises `PaymentFailed` when it cannot come any more."""
        asked = inv.SubscribeSingleInvoiceRequest(r_hash=held.payment_hash)
        async for invoice in self.stubs.invoices.SubscribeSingleInvoice(asked):
            if invoice.state == ln.Invoice.ACCEPTED:
                return
        raise PaymentFailed("the payee's invoice has ended without a payment")

    async def last_invoice_index(self) -> int:
        """How many invoices the node has ever made: it numbers them from 1 on."""
        asked = ln.ListInvoiceRequest(reversed=True, num_max_invoices=1)
        return (await self.stubs.lightning.ListInvoices(asked)).last_index_offset

    async def pay(self, bolt11: str, *, amount_msat: int = 0, max_fee_msat: int = 10_000) -> ln.Payment:
        """Pay and wait for the end; raises `PaymentFailed`. `amount_msat` only for an invoice without an amount."""
        return await self._send(
            router.SendPaymentRequest(payment_request=bolt11, amt_msat=amount_msat, fee_limit_msat=max_fee_msat)
        )

    async def overpay(self, bolt11: str, amount_msat: int, *, max_fee_msat: int = 10_000) -> ln.Payment:
        """Pay this much, whatever the invoice asks for; LND does so only when it is not shown the invoice."""
        asked = await self.stubs.lightning.DecodePayReq(ln.PayReqString(pay_req=bolt11))
        return await self._send(
            router.SendPaymentRequest(
                dest=bytes.fromhex(asked.destination),
                payment_hash=bytes.fromhex(asked.payment_hash),
                payment_addr=asked.payment_addr,
                final_cltv_delta=asked.cltv_expiry,
                amt_msat=amount_msat,
                fee_limit_msat=max_fee_msat,
            )
        )

    async def read(self, bolt11: str) -> int:
        """The amount that the node reads in an invoice; 0 where it names none."""
        return (await self.stubs.lightning.DecodePayReq(ln.PayReqString(pay_req=bolt11))).num_msat

    async def _send(self, request: router.SendPaymentRequest) -> ln.Payment:
        request.timeout_seconds = PAY_LIMIT_S
        request.no_inflight_updates = True
        async for payment in self.stubs.router.SendPaymentV2(request):
            if payment.status == ln.Payment.SUCCEEDED:
                return payment
            if payment.status == ln.Payment.FAILED:
                raise PaymentFailed(ln.PaymentFailureReason.Name(payment.failure_reason))
        raise PaymentFailed("the node ended the answer without a result")

    async def balance_msat(self) -> int:
        """What the node owns in its channels, without what is in flight."""
        return (await self.stubs.lightning.ChannelBalance(ln.ChannelBalanceRequest())).local_balance.msat


@asynccontextmanager
async def outside(stack: Stack, name: str = "outside-2") -> AsyncIterator[Outside]:
    """A node of the stack, also one of the bank's when a test must look behind the engine's back."""
    async with connect(services.node(stack.home, name)) as stubs:
        yield Outside(stubs)


async def sync_network(stack: Stack) -> None:
    """Wait until every Lightning node has seen the tip and every channel can be used."""
    nodes = [services.node(stack.home, name) for name in NODES]
    async with Network(stack.home, stack.bitcoin(), nodes) as network:
        await network.synced()
        await network.connect_peers()
        await network.channels_active()


def send_on_chain(chain: BitcoinRpc, address: str, amount_sat: int, *, fee_rate_sat_per_vb: int = 5) -> str:
    """Pay an address from the miner's wallet; replaceable, unconfirmed until somebody mines. Gives the txid."""
    amount = f"{Decimal(amount_sat) / 10**8:.8f}"
    txid: str = chain.call("sendtoaddress", wallet=MINER, address=address, amount=amount, fee_rate=fee_rate_sat_per_vb)
    return txid


async def main(arguments: list[str]) -> int:
    """One call of outside-2 from a shell."""
    match arguments:
        case ["invoice", amount] if amount.isdecimal():
            async with outside(Stack.running()) as node:
                print(await node.invoice(int(amount)))
        case ["pay", bolt11]:
            async with outside(Stack.running()) as node:
                paid = await node.pay(bolt11)
            print(f"paid {paid.value_msat} msat, fee {paid.fee_msat} msat")
        case _:
            print("outside: say `invoice MSAT` or `pay BOLT11`.", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (Failed, PaymentFailed, grpc.aio.AioRpcError) as failure:
        reason = failure.details() if isinstance(failure, grpc.aio.AioRpcError) else failure
        print(f"outside: {reason}", file=sys.stderr)
        sys.exit(1)
