"""The description of the API and its pages: made once, told again only to who does not have them."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api.app import create_app
from tests.helpers.api import settings_for

pytestmark = pytest.mark.integration

PAGES = {
    "/openapi.json": "application/json",
    "/docs": "text/html; charset=utf-8",
    "/docs/assets/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "/docs/assets/swagger-ui.css": "text/css; charset=utf-8",
    "/docs/assets/favicon.png": "image/png",
}


@pytest_asyncio.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings_for("postgresql://nobody@127.0.0.1:1/nothing", tmp_path_factory.mktemp("api")))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield client


async def raw(http: httpx.AsyncClient, path: str, headers: Mapping[str, str]) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it was sent."""
    async with http.stream("GET", path, headers=headers) as answer:
        return answer, b"".join([part async for part in answer.aiter_raw()])


@pytest.mark.parametrize(("path", "media_type"), PAGES.items())
async def test_a_page_is_told_once_compressed_where_it_may_be(
    http: httpx.AsyncClient, path: str, media_type: str
) -> None:
    plain, body = await raw(http, path, {"Accept-Encoding": "identity"})
    small, compressed = await raw(http, path, {"Accept-Encoding": "br;q=1.0, gzip;q=0.5"})
    assert (plain.status_code, plain.headers["content-type"]) == (200, media_type)
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed) == body
    assert plain.headers["etag"] != small.headers["etag"]
    for known, accepted in ((plain, "identity"), (small, "gzip")):
        for tags in (known.headers["etag"], f'"other", W/{known.headers["etag"]}', "*"):
            again, nothing = await raw(http, path, {"If-None-Match": tags, "Accept-Encoding": accepted})
            assert (again.status_code, nothing, again.headers["etag"]) == (304, b"", known.headers["etag"])
    stale, whole = await raw(http, path, {"If-None-Match": '"other"', "Accept-Encoding": "gzip;q=0"})
    assert (stale.status_code, whole) == (200, body)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_a_head_and_nothing_else(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.head(path)).status_code == 200
    assert (await http.post(path)).status_code == 405


@pytest.mark.parametrize("path", ["/docs/assets/redoc.standalone.js", "/docs/assets/", "/docs/assets/../app.py"])
async def test_there_are_no_other_parts(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


async def test_the_description_is_made_once_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    fresh = create_app(settings_for("postgresql://nobody@127.0.0.1:1/nothing", tmp_path))
    describe = fresh.openapi

    def counted() -> dict[str, Any]:
        nonlocal made
        made += 1
        return describe()

    monkeypatch.setattr(fresh, "openapi", counted)
    async with fresh.router.lifespan_context(fresh):
        transport = httpx.ASGITransport(fresh)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(20)))
    assert made == 1
    assert {json.loads(answer.text)["openapi"][:2] for answer in answers} == {"3."}
