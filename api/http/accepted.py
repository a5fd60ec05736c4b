"""202: an answer that is not final when the caller's time is up. It says where to look again, and when."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from api.http.errors import RETRY_AFTER_S


def accept(response: Response, location: str) -> None:
    """Answer 202, with the place to look again and when."""
    response.status_code = 202
    response.headers["Location"] = location
    response.headers["Retry-After"] = str(RETRY_AFTER_S)


def not_final(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The 202 of an operation for OpenAPI."""
    return {
        202: {
            "model": model,
            "description": "Not final yet: look again at `Location` after `Retry-After`, or repeat with the same key.",
        }
    }
