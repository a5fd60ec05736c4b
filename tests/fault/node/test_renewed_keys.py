"""A node's certificate is renewed, or our macaroon for it is replaced, while API and worker run on.

Both have copies of the files, as where nodes and engine are on different machines: the copy comes later than what it is
a copy of. Until then the node is away, and every place that tells of it says so.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local.home import BANK
from infra.local.lightning import Stubs, connect
from infra.local.network import ROLES
from infra.local.outside import Outside, sync_network
from infra.local.services import node as local_node
from infra.local.stack import Stack
from tests.fixtures.own_process import OwnWorker, nodes, own_api, own_worker
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.held_payment import held_payment, waits_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

AWAY = ("node_unavailable", "outcome_unknown")
ROOT_KEY = 78


@dataclass
class OurSide:
    """One API and one worker that read copies of the nodes' files."""

    api: httpx.AsyncClient
    worker: OwnWorker

    async def down(self) -> list[str]:
        """What this API says is away."""
        told: list[str] = (await self.api.get("/readyz")).json()["down"]
        return told

    async def until_down(self, *names: str) -> None:
        async def look() -> bool | None:
            return True if await self.down() == list(names) else None

        await eventually(look, f"readyz to name {names}")

    async def invoice(self, user: Account) -> Json | None:
        answer = await self.api.post(
            "/v1/invoices", json={"wallet_id": user.wallet_id, "amount_msat": 1_000_000}, headers=user.headers
        )
        if answer.status_code == 503:
            assert answer.json()["code"] == "node_unavailable"
            return None
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made


@asynccontextmanager
async def our_side(
    stack: Stack, worker: Mapping[str, Mapping[str, str]], api: Mapping[str, Mapping[str, str]]
) -> AsyncIterator[OurSide]:
    async with (
        own_worker(stack, nodes(stack, "worker", worker)) as running,
        own_api(stack, nodes(stack, "receive", api)) as client,
    ):
        side = OurSide(client, running)
        await side.until_down()
        yield side
        running.require_alive()


async def _renew(stack: Stack, names: Sequence[str]) -> None:
    """LND makes a certificate when it starts and has none, as it does when one has run out."""
    for name in names:
        await asyncio.to_thread(stack.hold, name)
        certificate = stack.home.certificate(name)
        certificate.unlink()
        certificate.with_suffix(".key").unlink()
        await asyncio.to_thread(stack.release, name)
    await sync_network(stack)


async def test_renewed_certificates_are_taken_up_and_what_was_paid_meanwhile_is_booked(
    bank: Bank, shop: Outside, tmp_path: Path
) -> None:
    home = bank.stack.home
    copies = {name: tmp_path / f"{name}.cert" for name in BANK}

    def copy(length: int | None = None) -> None:
        for name, file in copies.items():
            file.write_bytes(home.certificate(name).read_bytes()[:length])

    copy()
    copied = {name: {"tls_cert": str(file)} for name, file in copies.items()}
    alice = await bank.open_account(funds_msat=9_000_000)
    async with our_side(bank.stack, copied, copied) as ours:
        invoice = await ours.invoice(alice)
        assert invoice is not None
        payment_id, held = await held_payment(alice, shop)
        await _renew(bank.stack, BANK)
        for _ in bank.apis:  # the stack's own, which read the nodes' files themselves: the first call is served
            await alice.invoice(1_000)
        await ours.until_down(*BANK)
        assert await ours.invoice(alice) is None
        await shop.pay(invoice["bolt11"])
        await shop.settle(held)
        waiting = (await waits_for(alice, payment_id, *AWAY))["waiting"]
        assert waiting["needs_operator"] is False
        copy(300)  # they are being written just now
        assert await ours.down() == list(BANK)
        assert (await alice.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "open"
        copy()
        await ours.until_down()
        assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"
        await bank.credited(alice, invoice["id"], limit_s=120)
        another = await ours.invoice(alice)
        assert another is not None
        await shop.pay(another["bolt11"])
        await bank.credited(alice, another["id"])
        assert (await alice.pay(await shop.invoice(1_000_000), wait_s=60)).json()["status"] == "settled"


async def _bake(admin: Stubs, role: str, file: Path, root_key: int) -> None:
    permissions = [ln.MacaroonPermission(entity="uri", action=call) for call in ROLES[role]]
    request = ln.BakeMacaroonRequest(permissions=permissions, root_key_id=root_key)
    baked = bytes.fromhex((await admin.lightning.BakeMacaroon(request)).macaroon)
    await asyncio.to_thread(file.write_bytes, baked)


async def test_replaced_macaroons_are_taken_up_and_meanwhile_an_operator_is_called(
    bank: Bank, shop: Outside, tmp_path: Path
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    files = {(name, role): tmp_path / f"{name}-{role}.macaroon" for name in BANK for role in ("worker", "receive")}
    async with AsyncExitStack() as entered:
        admins = {name: await entered.enter_async_context(connect(local_node(bank.stack.home, name))) for name in BANK}

        async def bake(root_key: int) -> None:
            for (name, role), file in files.items():
                await _bake(admins[name], role, file, root_key)

        async def revoke(root_key: int) -> None:
            for admin in admins.values():
                await admin.lightning.DeleteMacaroonID(ln.DeleteMacaroonIDRequest(root_key_id=root_key))

        await bake(ROOT_KEY)
        worker, api = ({name: {"macaroon": str(files[name, role])} for name in BANK} for role in ("worker", "receive"))
        async with our_side(bank.stack, worker, api) as ours:
            invoice = await ours.invoice(alice)
            assert invoice is not None
            await revoke(ROOT_KEY)
            await ours.until_down(*BANK)
            await shop.pay(invoice["bolt11"])
            answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0, key=secrets.token_hex(8))
            stuck = await waits_for(alice, answer.json()["id"], "node_refuses")
            assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
            await bake(ROOT_KEY + 1)
            await ours.until_down()
            assert (await alice.final(answer.json()["id"], limit_s=150))["status"] == "settled"
            await bank.credited(alice, invoice["id"], limit_s=150)
            another = await ours.invoice(alice)
            assert another is not None
        await revoke(ROOT_KEY + 1)
