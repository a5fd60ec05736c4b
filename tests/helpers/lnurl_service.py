"""An LNURL service of somebody else, on loopback, whose invoices come from an outside node; honest, or as bad as asked.

    async with lnurl_service(shop) as service:
        await alice.pay(f"carol@{service.domain}", amount_msat=5_000)

The path after the name chooses how it behaves: `service.lnurl("wrong-amount")`.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from engine.clients.bolt11 import find_payment_hash
from engine.domain.lnurl import write_lnurl
from infra.local.outside import Outside
from tests.helpers.lnurl import aes, encrypted

METADATA = '[["text/plain","Carol’s teahouse"]]'
OTHER_METADATA = '[["text/plain","Something else"]]'


def http(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


BAD = {
    "file": http(302, b"", "Location: file:///etc/passwd\r\n"),
    "huge": http(200, b'{"tag": "' + b"x" * 300_000 + b'"}'),
    "gzip": http(200, gzip.compress(b"0" * 50_000_000), "Content-Encoding: gzip\r\n"),
    "headers": http(200, b"{}", "".join(f"X-{number}: {'x' * 4_000}\r\n" for number in range(100))),
    "html": http(200, b"<html>Welcome</html>"),
    "no": http(500, json.dumps({"status": "ERROR", "reason": "Closed for today."}).encode()),
}


DRIP = BAD["drip"] = b"HTTP/1.1 200 X\r\nContent-Length: 200000\r\n\r\n"


@dataclass
class Service:
    """What it was asked, and what it gave."""

    shop: Outside
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """Every path with its query."""
    invoices: list[str] = field(default_factory=list)

    @property
    def domain(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.domain}"

    def lnurl(self, way: str) -> str:
        return write_lnurl(f"{self.url}/{way}")

    async def answer(self, target: str) -> bytes:
        """The whole HTTP answer; nothing for silence."""
        self.asked.append(target)
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        way, _, step = parts.path.strip("/").partition("/")
        if way == ".well-known":
            way, step = "honest", ""
        if way == "slow":
            return b""
        if way in BAD:
            return BAD[way]
        if way in ("redirect", "circle") and not step:
            return http(302, b"", f"Location: {self.url}/{'honest' if way == 'redirect' else way}\r\n")
        told = await self._invoice(way, int(query["amount"])) if step == "callback" else self._offer(way)
        return http(200, json.dumps(told).encode())

    def _offer(self, way: str) -> dict[str, Any]:
        callback = f"{self.url}/{way}/callback?token=7"
        bounds = {"minSendable": 1_000, "maxSendable": 1_000 if way == "fixed" else 50_000_000}
        return {"tag": "payRequest", "callback": callback, "metadata": METADATA, "commentAllowed": 20, **bounds}

    async def _invoice(self, way: str, amount_msat: int) -> dict[str, Any]:
        metadata = OTHER_METADATA if way == "wrong-hash" else METADATA
        asked_msat = amount_msat + (1_000 if way == "wrong-amount" else 0)
        hashed = hashlib.sha256(metadata.encode()).digest()
        self.invoices.append(await self.shop.invoice(asked_msat, description_hash=hashed, expiry_s=600))
        return {"pr": self.invoices[-1], "routes": [], "successAction": await self._action(way)}

    async def _action(self, way: str) -> dict[str, str] | None:
        """What is shown to whoever has paid the last invoice."""
        match way:
            case "message":
                return {"tag": "message", "message": "Thank you!"}
            case "hostile":
                return {"tag": "message", "message": "Thank\0 \u202eyou!\x1b"}
            case "url" | "url-elsewhere":
                host = self.url if way == "url" else "http://localhost:1"
                return {"tag": "url", "description": "Your order", "url": f"{host}/order/7"}
            case "aes":
                found = await self.shop.look_up(bytes.fromhex(find_payment_hash(self.invoices[-1]) or ""))
                return aes(encrypted("Grüße: 1234".encode(), preimage=found.r_preimage.hex()))
            case "lottery":
                return {"tag": "lottery", "draw": "tomorrow"}
        return None


@asynccontextmanager
async def lnurl_service(shop: Outside) -> AsyncIterator[Service]:
    """Serve until the block ends."""
    service = Service(shop)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            answer = await service.answer(request.split(b" ")[1].decode())
            writer.write(answer)
            await writer.drain()
            while answer == DRIP:  # until the other side gives up
                await asyncio.sleep(0.1)
                writer.write(b" ")
                await writer.drain()
            if not answer:
                await reader.read()  # until the other side gives up
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
