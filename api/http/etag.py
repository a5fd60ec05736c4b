"""An answer that is the same for everybody, made once: the description of the API, its pages and their parts.

It has an `ETag`, so a client that has it already gets 304. It is kept compressed. A large one is sent in parts, each
when the one before has been taken: a slow reader holds one part in memory and never a whole copy.
"""

import gzip
import hashlib
from collections.abc import AsyncIterator

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

_PART = 65_536


class Kept:
    """One such answer."""

    def __init__(self, body: bytes, media_type: str, *, max_age_s: int = 0) -> None:
        """With `max_age_s` a client need not ask again before that."""
        self._body, self._compressed = body, gzip.compress(body, mtime=0)
        self._tag = hashlib.sha256(body).hexdigest()[:32]
        self._media_type = media_type
        self._cached = f"max-age={max_age_s}" if max_age_s else "no-cache"

    def answer(self, request: Request) -> Response:
        """The answer, or 304 when the client has it."""
        compressed = _takes_gzip(request.headers.get("accept-encoding", ""))
        tag = f'"{self._tag}{"-gzip" if compressed else ""}"'
        headers = {"ETag": tag, "Cache-Control": self._cached, "Vary": "Accept-Encoding"}
        if _has(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        body = self._compressed if compressed else self._body
        if compressed:
            headers["Content-Encoding"] = "gzip"
        if len(body) <= _PART:
            return Response(body, headers=headers, media_type=self._media_type)
        headers["Content-Length"] = str(len(body))
        return StreamingResponse(_parts(body), headers=headers, media_type=self._media_type)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PART):
        yield body[start : start + _PART]


def _takes_gzip(accepted: str) -> bool:
    """RFC 9110, 12.5.3: gzip is named, and not with the weight 0."""
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "").rstrip("0") not in {"q=", "q=0."}
    return False


def _has(tags: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: the tag is among these, weak or strong, or any will do."""
    return any(each.strip().removeprefix("W/") in {tag, "*"} for each in tags.split(","))
