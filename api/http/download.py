"""Streamed answers, of any length.

The first piece is made before the status is sent, so an early failure is an error like any other. A later one breaks
the connection off: a client that sees a clean end has everything. However it ends, the generator is closed before the
request is over, and with it whatever it held in Postgres.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class _Closing(StreamingResponse):
    """Closes what it streams."""

    pieces: AsyncGenerator[str, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.pieces.aclose()


async def stream(pieces: AsyncGenerator[str, None], *, media_type: str, file_name: str) -> StreamingResponse:
    """A download of these pieces of text, made by an async generator."""
    first = await anext(pieces, "")

    async def whole() -> AsyncIterator[str]:
        yield first
        async for piece in pieces:
            yield piece

    response = _Closing(
        whole(), media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{file_name}"'}
    )
    response.pieces = pieces
    return response
