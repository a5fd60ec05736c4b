"""Limits in tests: the rulebook and prices as operators set them, and what is shown to their payers."""

from typing import Any

from tests.helpers.api import ADMIN, Json, User, bearer
from tests.helpers.payer import Payers

SAT = 1_000


async def rulebook(bank: Payers, name: str = "limits") -> Json:
    found: Json = (await bank.api.http.get(f"/v1/admin/{name}", headers=ADMIN)).json()
    return found


async def set_limits(bank: Payers, levels: Json, **more: Any) -> Json:
    return await set_rules(bank, "limits", {"levels": levels, **more})


async def set_rules(bank: Payers, name: str, content: Json) -> Json:
    """Put the next version of the fees or the limits in force."""
    body = {"content": content, "note": "test", "version": (await rulebook(bank, name))["version"] + 1}
    answer = await bank.api.http.put(f"/v1/admin/{name}", json=body, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    made: Json = answer.json()
    return made


async def set_price(bank: Payers, currency: str, price: str) -> None:
    answer = await bank.api.http.put(f"/v1/admin/prices/{currency}", json={"price": price}, headers=ADMIN)
    assert answer.status_code == 200, answer.text


async def pair(bank: Payers, level: int, funds_msat: int = 10**9) -> tuple[User, User]:
    """A payer of this level with money, and a payee."""
    payer = await bank.api.open_account(level=level)
    await bank.fund(payer, funds_msat)
    return payer, await bank.api.open_account()


async def capped(bank: Payers, owner: User, **cap_sat: int) -> User:
    """The same account, by a key that may spend so much per window."""
    token = await bank.api.make_key(owner.id, ("read", "send"), spend_limit_sat=cap_sat)
    return User(owner.http, owner.id, owner.wallet_id, bearer(token))


async def shown(payer: User) -> dict[tuple[str, str], Json]:
    """By kind (with its currency) and window."""
    items = (await payer.get("/v1/limits")).json()["items"]
    return {(":".join([item["kind"], item.get("currency", "")]).rstrip(":"), item["window"]): item for item in items}


async def used(payer: User, kind: str = "lightning", window: str = "day") -> Any:
    """In msat, or as text in another currency."""
    item = (await shown(payer))[kind, window]
    return item["used_msat"] if "used_msat" in item else item["used"]
