"""Makes a node end a payment that it has accepted, has stopped working on, and reports as in flight.

LND writes a payment down, asks its chain for the height, and only then makes attempts. If the chain does not answer at
that moment, LND stops and tells nobody until it is restarted (seen). An attempt over a channel that does not exist
fails inside the node, before anything leaves it. After it, LND treats the payment as failed (seen) and takes no further
attempt of it. That is LND's rule for callers who name the route themselves.
"""

import secrets

from engine.clients.lnd.grpc_channel import translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.clients.lndrpc.routerrpc import router_pb2, router_pb2_grpc
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat

_CALL_TIMEOUT_S = 10
_NO_CHANNEL = 1
"""The second output of the first transaction of the first block, which has one output on every network."""
_BLOCKS = 144
_ADDRESS_BYTES = 32


async def end_untried(
    lightning: "lightning_pb2_grpc.LightningAsyncStub",
    router: "router_pb2_grpc.RouterAsyncStub",
    node: NodeName,
    payment_hash: PaymentHash,
    amount_msat: Msat,
) -> None:
    """Have the node fail a payment of this amount that has no attempt. A payment with an attempt stays as it is.

    LND refuses an attempt that would exceed the payment's amount, and an attempt of a payment that has ended. Look the
    payment up afterwards. A repeat changes nothing. Raises what `translated` raises.
    """
    with translated(node):
        info = await lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)
        expiry = info.block_height + _BLOCKS
        hop = ln.Hop(
            chan_id=_NO_CHANNEL,
            pub_key=info.identity_pubkey,
            amt_to_forward_msat=amount_msat,
            expiry=expiry,
            tlv_payload=True,
            mpp_record=ln.MPPRecord(payment_addr=secrets.token_bytes(_ADDRESS_BYTES), total_amt_msat=amount_msat),
        )
        route = ln.Route(total_time_lock=expiry, total_amt_msat=amount_msat, hops=[hop])
        await router.SendToRouteV2(
            router_pb2.SendToRouteRequest(payment_hash=bytes.fromhex(payment_hash), route=route),
            timeout=_CALL_TIMEOUT_S,
        )
