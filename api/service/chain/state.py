"""How the chain is followed, for operators. The use case. It reads PostgreSQL only: the API never calls bitcoind."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.service.auth import Caller
from api.service.chain.problem import explain
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.money import MSAT_PER_SAT
from engine.ledger.database import Connection, snapshot
from engine.views.balance import find_balance_then
from engine.views.chain import ChainRow, count_addresses, count_deposits, count_receivables, list_chains


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class BlockOut(BaseModel):
    """A block by its place and its hash."""

    height: int
    hash: str


class ChainProblemOut(_Shown):
    """Why bitcoind cannot be followed now. Deposits are found afterwards, however long it lasts."""

    reason: str = Field(examples=["unreachable"])
    detail: str
    remedy: str


class BitcoindOut(BaseModel):
    """bitcoind as the pump last reported it. A value is null if the pump has never reported it."""

    height: int | None
    hash: str | None
    headers: int | None = Field(description="The best header that bitcoind knows; more than height: it is catching up.")
    network: str | None
    version: int | None = Field(examples=[290400])
    subversion: str | None
    pruned_below: int | None = Field(description="The lowest block that it has, if it prunes.")
    policy: dict[str, Any] = Field(description="What its mempool takes: minimum fee rates and sizes.")
    warnings: str | None


class HotWalletOut(BaseModel):
    """The wallet of bitcoind that is followed."""

    wallet: str
    network: str
    tip: BlockOut = Field(description="The newest block that is written down.")
    lag_blocks: int | None = Field(description="How many blocks bitcoind knows beyond the tip; 0: none.")
    reported_at: datetime
    report_age_s: int
    problem: ChainProblemOut | None
    bitcoind: BitcoindOut
    rescan_from: int | None = Field(description="A rescan from this height was asked for and is not finished.")
    pump_epoch: int = Field(description="Counts the pumps. Each start of a pump takes the next number.")
    scan_from: int | None = Field(description="bitcoind's wallet has lost blocks, and must read them from this height.")
    adopted_at: datetime
    adopted_height: int = Field(
        description="The tip at the adoption. What the wallet had received until then is capital, and no deposit."
    )
    anchor: BlockOut = Field(description="The lowest block that was remembered at the adoption.")


class PoolOut(_Shown):
    """Addresses for deposits."""

    ready: int = Field(description="Made, and not given to anybody yet.")
    given: int
    unpaid: int = Field(description="Given, and nothing has come to them yet.")
    target: int | None = Field(description="How many the worker keeps ready.")


class DepositFiguresOut(_Shown):
    """The deposits of one status. Dropped ones are left out, and credited ones whose block lies deep."""

    status: str
    count: int
    amount_sat: int


class ReceivableFiguresOut(_Shown):
    """What users owe for deposits that a reorganisation took back."""

    count: int
    amount_msat: int


class ChainOut(BaseModel):
    """The chain, the hot wallet, and deposits by status, at one moment."""

    wallets: list[HotWalletOut] = Field(description="Empty before a worker has adopted the hot wallet.")
    books_sat: int = Field(description="What the books have in asset:hot.")
    incoming_sat: int = Field(description="What was seen and is not credited yet.")
    pool: PoolOut
    deposits: list[DepositFiguresOut]
    receivables: ReceivableFiguresOut


async def show_chain(resources: Resources, caller: Caller) -> ChainOut:
    """The chain as the pump last wrote it down. `wallets` is empty before the adoption."""
    caller.require_role(*MAY["see the chain"])
    async with snapshot(resources.pool) as conn:
        chains = await list_chains(conn)
        hot = await find_balance_then(conn, "asset:hot")
        return ChainOut(
            wallets=[_wallet(chain) for chain in chains],
            books_sat=_sat(hot.settled_msat if hot else 0),
            incoming_sat=_sat(hot.held_msat if hot else 0),
            pool=await _pool(conn, chains),
            deposits=[DepositFiguresOut.model_validate(each) for each in await count_deposits(conn)],
            receivables=ReceivableFiguresOut.model_validate(await count_receivables(conn)),
        )


def _wallet(chain: ChainRow) -> HotWalletOut:
    told = chain.report
    known = [height for height in (told.get("height"), told.get("headers")) if isinstance(height, int)]
    return HotWalletOut(
        wallet=chain.wallet,
        network=chain.network,
        tip=BlockOut(height=chain.tip_height, hash=chain.tip_hash),
        lag_blocks=max(0, max(known) - chain.tip_height) if known else None,
        reported_at=chain.reported_at,
        report_age_s=chain.report_age_s,
        problem=None if chain.problem is None else ChainProblemOut.model_validate(explain(chain.problem)),
        bitcoind=BitcoindOut(
            height=told.get("height"),
            hash=told.get("hash"),
            headers=told.get("headers"),
            network=told.get("network"),
            version=told.get("version"),
            subversion=told.get("subversion"),
            pruned_below=told.get("pruned_below"),
            policy=told.get("policy") or {},
            warnings=told.get("warnings"),
        ),
        rescan_from=chain.rescan_from,
        pump_epoch=chain.epoch,
        scan_from=chain.scan_from,
        adopted_at=chain.adopted_at,
        adopted_height=chain.adopted_height,
        anchor=BlockOut(height=chain.anchor_height, hash=chain.anchor_hash),
    )


async def _pool(conn: Connection, chains: Sequence[ChainRow]) -> PoolOut:
    counted = await count_addresses(conn)
    targets = [chain.report.get("address_pool") for chain in chains]
    return PoolOut(
        ready=counted.ready,
        given=counted.given,
        unpaid=counted.unpaid,
        target=next((target for target in targets if isinstance(target, int)), None),
    )


def _sat(amount_msat: int) -> int:
    """On chain every amount is whole satoshi."""
    return amount_msat // MSAT_PER_SAT
