"""What the steps of the demo are made of: a user of the bank, the story and its lines, checks."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from rich.console import Console

from infra.local.parts.store import Failed

Json = dict[str, Any]
T = TypeVar("T")

_LIMIT_S = 60


class DoesNotHold(Exception):
    """A line of the demo is not true."""


@dataclass
class User:
    """A user of the bank, as an app sees one."""

    name: str
    wallet_id: str
    http: httpx.AsyncClient

    async def call(self, method: str, path: str, body: Json | None = None, **headers: str) -> httpx.Response:
        """One request with this user's key; headers are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, path, json=body, headers=named)

    async def pay(self, destination: str, *, key: str | None = None, wait_s: int = 30, **body: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        """Send; the key makes it safe to repeat."""
        body = {"wallet_id": self.wallet_id, "destination": destination, **body}
        key = key or secrets.token_hex(8)
        return await self.call("POST", "/v1/payments", body, Idempotency_Key=key, Prefer=f"wait={wait_s}")

    async def invoice(self, amount_msat: int, memo: str) -> Json:
        """Make an invoice."""
        body = {"wallet_id": self.wallet_id, "amount_msat": amount_msat, "memo": memo}
        return expect(await self.call("POST", "/v1/invoices", body), 201)

    async def wallet(self) -> Json:
        """The wallet as it is now."""
        return expect(await self.call("GET", f"/v1/wallets/{self.wallet_id}"), 200)


@dataclass
class Line:
    """One line of the table."""

    step: str
    moved: str = ""
    stands: str = ""
    took_s: float = 0
    holds: bool = True


Step = Callable[[str], AbstractContextManager[Line]]
"""Begins a step of this title."""


@dataclass
class Story:
    """What the demo has shown so far."""

    console: Console
    lines: list[Line] = field(default_factory=list[Line])

    @contextmanager
    def step(self, title: str) -> Iterator[Line]:
        """Show that it runs, time it, and note whether it holds. Later steps run even after one that does not."""
        line = Line(title)
        self.lines.append(line)
        started = time.monotonic()
        try:
            with self.console.status(title):
                yield line
        except (DoesNotHold, httpx.HTTPError, TimeoutError, Failed) as error:
            line.holds = False
            line.stands = f"does not hold: {error}"
        line.took_s = time.monotonic() - started
        mark = "[green]✓[/]" if line.holds else "[red]✗[/]"
        self.console.print(f"{mark} {title} [dim]{line.took_s:.1f} s[/]")


@asynccontextmanager
async def opened(told: Mapping[str, str], name: str, *scopes: str, level: int = 0) -> AsyncIterator[User]:
    """A new user, or operator, with one key; the name gets a suffix of its own."""
    name = f"{name}_{secrets.token_hex(3)}"
    async with httpx.AsyncClient(base_url=told["MILLRACE_API_URL"], timeout=75) as http:
        admin = {"Authorization": f"Bearer {told['MILLRACE_ADMIN_KEY']}"}
        account = expect(await http.post("/v1/accounts", json={"username": name, "level": level}, headers=admin), 201)
        body = {"name": "demo", "scopes": scopes or ["read", "receive", "send"]}
        key = expect(await http.post(f"/v1/accounts/{account['id']}/api-keys", json=body, headers=admin), 201)
        http.headers["Authorization"] = f"Bearer {key['key']}"
        yield User(name, account["wallets"][0]["id"], http)


async def until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """What the look finds, once it finds something. Raises DoesNotHold after a minute."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            while (found := await look()) is None:  # noqa: ASYNC110 - the fact is elsewhere
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise DoesNotHold(f"waited {_LIMIT_S} s in vain for {what}") from None


def expect(answer: httpx.Response, status: int) -> Json:
    """The answer's body. Raises DoesNotHold for another status."""
    if answer.status_code != status:
        raise DoesNotHold(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
    body: Json = answer.json()
    return body


def hold(fact: bool, what: str) -> None:
    """Raises DoesNotHold for what is not a fact."""
    if not fact:
        raise DoesNotHold(what)


def sat(amount_msat: int) -> str:
    """An amount for people, with any fraction of a satoshi."""
    whole, rest = divmod(amount_msat, 1000)
    return f"{whole:,}{f'.{rest:03}' if rest else ''} sat"
