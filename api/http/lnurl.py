"""Errors as LNURL has them: 200 with `{"status": "ERROR", "reason": …}` (LUD-01), never a problem document.

Its callers know LNURL and not our API. Pages of other sites may call, because some wallets run in a browser.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from api.http.errors import in_public_words
from engine.domain.errors import EngineError


class LnurlRoute(APIRoute):
    """A route that answers errors as LNURL does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with LNURL's errors, open to pages of other sites."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except EngineError as error:
                _status, _code, reason = in_public_words(request, error)
                response = JSONResponse({"status": "ERROR", "reason": reason})
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer
