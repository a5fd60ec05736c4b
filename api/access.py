"""The dependencies of routes: the resources of the process, and the caller, if the key allows the operation.

A caller sends an API key in `Authorization: Bearer …` or in `X-Api-Key` (`service/auth.py`).
"""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from api.http import prefer
from api.service.auth import Caller, authenticate, count
from api.service.deadline import Deadline
from api.service.resources import Resources
from api.service.role import Role, Scope
from engine.domain.errors import NotFound

_ID = re.compile(r"[0-9A-Za-z_]{1,100}")


def _could_be_an_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no such thing.")
    return text


PathId = Annotated[str, AfterValidator(_could_be_an_id)]
"""An id in a path. A text that cannot be an id is not found, and never reaches the database."""

_BEARER = HTTPBearer(auto_error=False, description="An API key.")
_HEADER = APIKeyHeader(name="X-Api-Key", auto_error=False, description="An API key, as an alternative.")


async def get_resources(request: Request) -> Resources:
    """The resources that the lifespan made."""
    resources: Resources = request.app.state.resources
    return resources


async def caller_of(request: Request) -> Caller:
    """The caller with the key of this request, which is counted. Raises Unauthenticated, RateLimited."""
    bearer = await _BEARER(request)
    token = bearer.credentials if bearer else await _HEADER(request)
    resources = await get_resources(request)
    caller = await authenticate(resources, token)
    request.state.caller = caller.key_id  # tells admission.py that the key is valid
    await count(resources, caller)
    return caller


async def enter(request: Request, scope: Scope) -> tuple[Resources, Caller]:
    """The resources and the caller, if its key has this scope. Raises Unauthenticated, RateLimited, Forbidden."""
    resources, caller = await get_resources(request), await caller_of(request)
    caller.require(scope)
    return resources, caller


async def get_caller(
    request: Request,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    _header: Annotated[str | None, Security(_HEADER)],
) -> Caller:
    """Dependency: as `caller_of`."""
    return await caller_of(request)


async def waiting(
    request: Request, _documented: Annotated[str | None, Header(alias="Prefer", description=prefer.MEANING)] = None
) -> Deadline:
    """Dependency: how long this request may wait."""
    return Deadline(prefer.wait_s(request.headers.getlist("Prefer")))


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Dependency: the caller, if its key has this scope. The use case checks it again, whichever door calls it.

    With the check here, a key without the scope is refused before path, query and body are read.
    """

    async def allowed(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return allowed


def needs_role(*roles: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Dependency: as `needs`, for one of these roles. `service/role.py` says which roles an operation takes."""

    async def allowed(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        caller.require_role(*roles)
        return caller

    return allowed


def asked_by_hand(**headers: str) -> dict[str, Any]:
    """`openapi_extra` of an operation that reads its caller and these headers by itself, with their meaning.

    FastAPI takes 0.2 ms to resolve the dependencies of a payment. The two operations that are called most do without.
    """
    return {
        "security": [{scheme.scheme_name: []} for scheme in (_BEARER, _HEADER)],
        "parameters": [
            {
                "name": name.replace("_", "-"),
                "in": "header",
                "required": False,
                "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "description": meaning,
            }
            for name, meaning in headers.items()
        ],
    }
