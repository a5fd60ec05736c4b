"""Every parameter of every operation, filled with what has ever broken a program: answered, and never an error of ours.

The operations are those of the API's own description, so a new one is asked as well.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api
from tests.helpers.hostile import NASTY, NUMBERS

pytestmark = pytest.mark.integration

TEXTS = [
    *(each[:2_000] for each in NASTY),
    *(str(number)[:400] for number in NUMBERS),
    *("0000-00-00T00:00:00Z", "9999-12-31T23:59:59+24:00", "2026-02-30", "-1", "+1", "１２", "0x10", "1_000", "true"),
]
AWAY = httpx.codes.SERVICE_UNAVAILABLE
"""Of the parts that these tests have not."""


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    dsns = shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn
    async with running_api(*dsns, folder, rate_limit_per_minute=0, public_rate_limit_per_minute=0) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def user(api: Api) -> User:
    return await api.open_account(("read", "receive", "send", "admin"), username="alice")


def _operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


def _escaped(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def _known(path: str, user: User, *, but: str = "", text: str = "") -> str:
    """The path with things that are there, and this text in place of one of them."""
    there = {"username": "alice", "wallet_id": user.wallet_id, "account_id": user.id}
    parts = []
    for part in path.split("/"):
        name = part.removeprefix("{").removesuffix("}")
        value = part if name == part else text if name == but else there.get(name, "x")
        parts.append(value if name == part else _escaped(value))
    return "/".join(parts)


async def test_no_parameter_of_any_operation_is_an_error_of_ours(api: Api, user: User) -> None:
    broken, asked = [], 0
    for method, path, operation in _operations(api.app.openapi()):
        for parameter in operation.get("parameters", []):
            name, place = parameter["name"], parameter["in"]
            for text in TEXTS:
                headers = dict(user.headers)
                url = _known(path, user, but=name if place == "path" else "", text=text)
                if place == "query":
                    url += f"?{name}={_escaped(text)}"
                if place == "header":
                    headers[name] = (
                        text.encode("latin-1", "replace").decode("latin-1").translate(dict.fromkeys([0, 10, 13]))
                    )
                try:
                    answer = await user.http.request(method, url, headers=headers, content=b"{}")
                except (httpx.InvalidURL, UnicodeEncodeError):  # this client does not send it
                    continue
                asked += 1
                if answer.status_code >= 500 and answer.status_code != AWAY:
                    broken.append((method, path, name, text[:40], answer.text[:200]))
    assert broken == []
    assert asked > 1_000
