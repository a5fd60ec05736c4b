"""The API in this process, on a real Postgres of its own; Temporal, Redis and bitcoind are away, nodes are made up."""

import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from api.app import create_app
from api.service.resources import Resources
from engine.domain.errors import Unavailable
from engine.domain.ids import NodeName
from engine.settings import ApiSettings, NodeSettings
from tests.helpers.invoice.bolt11_encoder import Draft, to_words

ADMIN = {"Authorization": "Bearer an-admin-key-for-tests"}
Json = dict[str, Any]


@dataclass
class MadeUpNode:
    """Answers like a node that is up, or like one that is down."""

    name: NodeName
    is_up: bool = True
    has_hints: bool = True
    """Whether its unannounced channels lead to peers whom the network knows."""
    asked: list[bytes] = field(default_factory=list)
    paid: set[str] = field(default_factory=set)
    cancelled: list[str] = field(default_factory=list)
    _made: dict[bytes, str] = field(default_factory=dict)

    async def add_invoice(
        self,
        *,
        preimage: bytes,
        amount_msat: int | None,
        memo: str | None,
        description_hash: bytes | None,
        expiry_s: int,
        hints: bool = False,
    ) -> str:
        if not self.is_up:
            raise Unavailable("this node is down")
        self.asked.append(preimage)
        hop = bytes.fromhex("02" + "ab" * 32) + bytes(18)
        named = [("r", to_words(hop))] if hints and self.has_hints else []
        draft = Draft(
            amount=f"{amount_msat}0p" if amount_msat else "",
            timestamp=int(time.time()),
            payment_hash=hashlib.sha256(preimage).digest(),
            description=(memo or "").encode(),
            expiry_s=expiry_s,
            without="d" if description_hash else "",
            extra=[("h", to_words(description_hash)), *named] if description_hash else named,
        )
        return self._made.setdefault(preimage, draft.text())

    async def cancel_invoice(self, payment_hash: str) -> bool:
        if not self.is_up:
            raise Unavailable("this node is down")
        self.cancelled.append(payment_hash)
        return payment_hash not in self.paid

    async def is_active(self) -> bool:
        return self.is_up

    async def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class User:
    """A user of the bank and its key."""

    http: httpx.AsyncClient
    id: str
    wallet_id: str
    headers: dict[str, str]

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, headers=self.headers, params=params)

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> httpx.Response:
        headers |= {"Idempotency-Key": key} if key else {}
        return await self.http.post(path, json=body, headers={**self.headers, **headers})

    async def pay(self, destination: str, *, key: str | None = None, prefer: str = "", **body: Any) -> httpx.Response:
        sent = {"wallet_id": self.wallet_id, "destination": destination, **body}
        return await self.post("/v1/payments", sent, key=key or secrets.token_hex(8), Prefer=prefer)

    async def quote(self, destination: str, **body: Any) -> Json:
        answer = await self.post(
            "/v1/payments/quote", {"wallet_id": self.wallet_id, "destination": destination, **body}
        )
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def make_link(self, amount_msat: int, *, key: str | None = None, **body: Any) -> Json:
        """A withdraw link."""
        sent = {"wallet_id": self.wallet_id, "amount_msat": amount_msat, **body}
        answer = await self.post("/v1/withdraw-links", sent, key=key)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made

    async def available(self) -> int:
        """In msat: what is neither spent nor held."""
        return int((await self.get(f"/v1/wallets/{self.wallet_id}")).json()["available_msat"])

    async def balance(self) -> tuple[int, int]:
        """(balance, held of it), in msat."""
        wallet = (await self.get(f"/v1/wallets/{self.wallet_id}")).json()
        return wallet["balance_msat"], wallet["held_msat"]


@dataclass
class Api:
    """The API, and the doors behind it."""

    app: FastAPI
    http: httpx.AsyncClient
    database: asyncpg.Connection
    nodes: dict[str, MadeUpNode]

    @property
    def resources(self) -> Resources:
        found: Resources = self.app.state.resources
        return found

    def change(self, **resources: Any) -> None:
        self.app.state.resources = replace(self.resources, **resources)

    async def open_account(self, scopes: tuple[str, ...] = ("read", "receive", "send"), **body: Any) -> User:
        opened = await self.http.post("/v1/accounts", json=body, headers=ADMIN)
        assert opened.status_code == 201, opened.text
        account = opened.json()
        return User(
            self.http, account["id"], account["wallets"][0]["id"], bearer(await self.make_key(account["id"], scopes))
        )

    async def make_key(self, account_id: str, scopes: tuple[str, ...], **body: Any) -> str:
        made = await self.http.post(
            f"/v1/accounts/{account_id}/api-keys", json={"name": "test", "scopes": list(scopes), **body}, headers=ADMIN
        )
        assert made.status_code == 201, made.text
        return str(made.json()["key"])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def is_problem(answer: httpx.Response, status: int, code: str) -> Json:
    """Assert that this is a whole problem document, and give it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: Json = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def settings_for(dsn: str, folder: Path, **changed: Any) -> ApiSettings:
    empty = folder / "empty"
    empty.write_bytes(b"")
    node = NodeSettings(address="127.0.0.1:1", tls_cert=empty, macaroon=empty)
    told: Json = {
        "postgres_dsn": SecretStr(dsn),
        "redis_url": SecretStr("redis://127.0.0.1:1/0"),
        "temporal_address": "127.0.0.1:1",
        "bitcoin_network": "regtest",
        "nodes": {"lnd-1": node, "lnd-2": node},
        "bitcoind_url": SecretStr("http://127.0.0.1:1"),
        "admin_key": SecretStr("an-admin-key-for-tests"),
        "preimage_secret": SecretStr("07" * 32),
        "public_url": "http://pay.test",
        "public_rate_limit_per_minute": 0,
        "public_rate_limit_per_second": 0,
        **changed,
    }
    return ApiSettings.model_construct(**told)  # as they are: nothing is read from this machine's environment


@asynccontextmanager
async def running_api(dsn: str, owner_dsn: str, folder: Path, **changed: Any) -> AsyncIterator[Api]:
    app = create_app(settings_for(dsn, folder, **changed))
    async with app.router.lifespan_context(app):
        nodes = {name: MadeUpNode(NodeName(name)) for name in ("lnd-1", "lnd-2")}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        database = await asyncpg.connect(owner_dsn)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
                api = Api(app, http, database, nodes)
                api.change(invoices=nodes)
                yield api
        finally:
            await database.close()
