"""`/openapi.json` and `/docs`: made once, the same for everybody.

`/docs` is Swagger UI from an installed package, so the page loads nothing from other servers. Describing all operations
takes a second of CPU, so the first request does it, in a thread.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from api.http.etag import Kept
from api.service.remembered import Remembered

_ASSETS = Path(fastapi_offline.__file__).parent / "static"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
_DAY_S = 86_400


def serve_pages(app: FastAPI) -> None:
    """Add the routes; `app.openapi()` describes the API."""
    description = Remembered(lambda: asyncio.to_thread(_describe, app))

    async def openapi(request: Request) -> Response:
        return (await description.get()).answer(request)

    async def docs(request: Request) -> Response:
        return _page().answer(request)

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    for name in _MEDIA_TYPES:
        app.add_route(f"/docs/assets/{name}", _giving(name), include_in_schema=False)


def _describe(app: FastAPI) -> Kept:
    text = json.dumps(app.openapi(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Kept(text.encode(), "application/json")


@cache
def _page() -> Kept:
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Millrace API",
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.png",
    )
    return Kept(bytes(page.body), "text/html; charset=utf-8")


def _giving(name: str) -> Callable[[Request], Awaitable[Response]]:
    asset = Remembered(lambda: asyncio.to_thread(_read, name))

    async def give(request: Request) -> Response:
        return (await asset.get()).answer(request)

    return give


def _read(name: str) -> Kept:
    return Kept((_ASSETS / name).read_bytes(), _MEDIA_TYPES[name], max_age_s=_DAY_S)
