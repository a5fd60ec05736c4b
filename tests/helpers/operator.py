"""Operators with keys of their own, on the real stack: they propose, approve and reject corrections."""

import secrets
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fixtures.stack import Bank, Json

PATH = "/v1/admin/corrections"
FEES = "income:ln-fee"


@dataclass
class Operator:
    """Somebody with a key for the operators' side."""

    bank: Bank
    id: str
    headers: dict[str, str]

    async def post(self, path: str, body: Json, *, key: str | None = None) -> httpx.Response:
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        return await self.bank.next_api().post(f"{PATH}{path}", json=body, headers=headers)

    async def propose(self, debit: str, credit: str, amount_msat: int, **more: Any) -> Json:
        body = {"kind": "correction", "debit": debit, "credit": credit, "amount_msat": amount_msat, **more}
        answer = await self.post("", {"reason": "counted again", **body}, key=secrets.token_hex(8))
        assert answer.status_code == 201, answer.text
        proposed: Json = answer.json()
        assert (proposed["status"], proposed["proposed_by"]) == ("proposed", self.id)
        return proposed

    async def approve(self, correction: Json, note: str = "seen") -> httpx.Response:
        return await self.post(f"/{correction['id']}/approve", {"note": note})

    async def reject(self, correction: Json, reason: str = "no") -> httpx.Response:
        return await self.post(f"/{correction['id']}/reject", {"reason": reason})


async def operator(bank: Bank, *scopes: str) -> Operator:
    account = await bank.open_account()
    return Operator(bank, account.id, await new_key(bank, account.id, *(scopes or ("finance", "treasury"))))


async def new_key(bank: Bank, account_id: str, *scopes: str) -> dict[str, str]:
    made = await bank.http.post(
        f"/v1/accounts/{account_id}/api-keys", json={"name": "test", "scopes": scopes}, headers=bank.admin
    )
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}
