"""The users of the bench, as apps see them: accounts, keys and money, made over the public API.

One user is funded from outside over Lightning and pays the others, so that books and nodes agree here as everywhere.
"""

import itertools
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from infra.bench.contest import Wrong, eventually
from infra.bench.http import Wire
from infra.bench.servers import Servers
from infra.local import environment
from infra.local.outside import Outside, PaymentFailed, outside

Json = dict[str, Any]

COUNT = 64
EACH_MSAT = 50_000_000


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a key that may do everything a user may."""

    number: int
    username: str
    account_id: str
    wallet_id: str
    key: str


class People:
    """Who they are and what each must have. Every contestant that moves their money says so here."""

    def __init__(self, servers: Servers, everybody: Sequence[Person]) -> None:
        self._servers, self.everybody = servers, everybody
        self.owned_msat = [0] * len(everybody)
        self._keys = itertools.count()
        self._run = secrets.token_hex(4)

    def new_key(self) -> str:
        """An idempotency key that was never used."""
        return f"{self._run}-{next(self._keys)}"

    def moved(self, payer: int, payee: int, amount_msat: int) -> None:
        """A payment was answered as settled."""
        self.owned_msat[payer] -= amount_msat
        self.owned_msat[payee] += amount_msat

    def spent(self, payer: int, amount_msat: int) -> None:
        """A payment to the outside was answered as settled, with its fee."""
        self.owned_msat[payer] -= amount_msat

    def received(self, payee: int, amount_msat: int) -> None:
        """Money came from outside."""
        self.owned_msat[payee] += amount_msat

    def anybody(self) -> Person:
        """One of them at random."""
        return random.choice(self.everybody)

    async def check(self) -> None:
        """Raises Wrong unless every balance is what the answers say, to the millisatoshi, and nothing is held."""
        connection = await asyncpg.connect(self._servers.dsn(environment.DATABASE))
        try:
            rows = await connection.fetch(
                """SELECT w.id, b.available, b.held_dr FROM bank.wallets w
                     JOIN ledger.balances b ON b.account_id = w.ledger_account_id WHERE w.id = ANY($1)""",
                [person.wallet_id for person in self.everybody],
            )
        finally:
            await connection.close()
        found = {row["id"]: (row["available"], row["held_dr"]) for row in rows}
        for person, owned_msat in zip(self.everybody, self.owned_msat, strict=True):
            if found.get(person.wallet_id) != (owned_msat, 0):
                raise Wrong(f"@{person.username} has {found.get(person.wallet_id)} and must have {owned_msat} msat")


async def settle_in(servers: Servers, count: int = COUNT) -> People:
    """Open the accounts and give everybody the same. Raises Wrong."""
    told = servers.stack.environment()
    wire = Wire(servers.stack.home.ports()["api-1"])
    admin = f"Bearer {told['MILLRACE_ADMIN_KEY']}"
    try:
        everybody = [await _open(wire, admin, number) for number in range(count)]
        people = People(servers, everybody)
        rich = everybody[0]
        async with outside(servers.stack) as payer:
            await fund(wire, people, rich, EACH_MSAT * count, payer)
        for other in everybody[1:]:
            await pay(wire, people, rich, f"@{other.username}", other.number, amount_msat=EACH_MSAT)
    finally:
        wire.close()
    await people.check()
    return people


async def fund(wire: Wire, people: People, person: Person, amount_msat: int, payer: Outside) -> None:
    """Somebody outside pays an invoice of this user, who has the money when this returns. Raises Wrong."""
    key = f"Bearer {person.key}"
    body = {"wallet_id": person.wallet_id, "amount_msat": amount_msat}
    invoice = expect(await wire.ask("POST", "/v1/invoices", body, Authorization=key))
    try:
        await payer.pay(invoice["bolt11"])
    except PaymentFailed as failed:
        raise Wrong(f"outside cannot pay @{person.username} {amount_msat} msat: {failed}") from failed

    async def credited() -> bool:
        shown = expect(await wire.ask("GET", f"/v1/invoices/{invoice['id']}", Authorization=key), 200)
        return bool(shown["status"] == "settled")

    await eventually(credited, "the bench's money to arrive")
    people.received(person.number, amount_msat)


async def pay(
    wire: Wire,
    people: People,
    payer: Person,
    destination: str,
    payee: int,
    *,
    amount_msat: int,
    in_invoice: bool = False,
) -> None:
    """One payment, to its end. Raises Wrong when it is not settled."""
    body = {"wallet_id": payer.wallet_id, "destination": destination}
    given = body if in_invoice else {**body, "amount_msat": amount_msat}
    headers = {"Authorization": f"Bearer {payer.key}", "Idempotency_Key": people.new_key(), "Prefer": "wait=30"}
    paid = expect(await wire.ask("POST", "/v1/payments", given, **headers))
    if paid["status"] != "settled":
        raise Wrong(f"a payment is {paid['status']}: {paid}")
    people.moved(payer.number, payee, amount_msat)


def expect(answer: tuple[int, object], status: int = 201) -> Json:
    """The body of an answer. Raises Wrong for another status."""
    if answer[0] != status or not isinstance(answer[1], dict):
        raise Wrong(f"answered {answer[0]}: {answer[1]}")
    return answer[1]


async def _open(wire: Wire, admin: str, number: int) -> Person:
    username = f"bench_{number}"
    account = expect(await wire.ask("POST", "/v1/accounts", {"username": username}, Authorization=admin))
    body = {"name": "bench", "scopes": ["read", "receive", "send"]}
    key = expect(await wire.ask("POST", f"/v1/accounts/{account['id']}/api-keys", body, Authorization=admin))
    return Person(number, username, account["id"], account["wallets"][0]["id"], key["key"])
