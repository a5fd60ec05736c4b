"""Is this process alive, and can it serve? Asked without a key, by load balancers and by people."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from api.access import get_resources
from api.http.errors import MEDIA_TYPE, problem
from api.service.remembered import Remembered
from api.service.resources import Resources
from engine.ledger.database import translated

router = APIRouter(tags=["health"])

_LIMIT_S, _LIFE_S = 2, 1


class AliveOut(BaseModel):
    """This process answers."""

    status: str = "alive"


class ReadyOut(BaseModel):
    """Everything that this process needs answers."""

    status: str = "ready"
    up: list[str]
    down: list[str]


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> AliveOut:
    """No key needed. Says nothing about anything else."""
    return AliveOut()


@router.get(
    "/readyz",
    summary="Can it serve?",
    response_model=ReadyOut,
    responses={503: {"description": "Something is away: `down` names it.", "content": {MEDIA_TYPE: {}}}},
)
async def readyz(request: Request, resources: Annotated[Resources, Depends(get_resources)]) -> ReadyOut | JSONResponse:
    """No key needed. Asks Postgres, Redis, Temporal, each Lightning node and bitcoind at once, for 2 s at most.

    The answer holds for a second, whoever asks.
    """
    state = request.app.state
    if getattr(state, "readiness", None) is None:
        state.readiness = Remembered(lambda: _look(resources), _LIFE_S)
    up, down = await state.readiness.get()
    if not down:
        return ReadyOut(up=up, down=down)
    detail = f"Away: {', '.join(down)}."
    return problem(
        503, "temporarily_unavailable", detail, fields={"up": up, "down": down}, headers={"Retry-After": "1"}
    )


async def _look(resources: Resources) -> tuple[list[str], list[str]]:
    """What is up, and what is down."""
    checks: dict[str, Awaitable[bool]] = {
        "postgres": _postgres(resources),
        "redis": resources.cache.ping(),
        "temporal": _temporal(resources),
        **{name: node.is_active() for name, node in resources.invoices.items()},
        "bitcoind": _bitcoind(resources),
    }
    answers = await asyncio.gather(*(_within_limit(check) for check in checks.values()))
    up = [name for name, answer in zip(checks, answers, strict=True) if answer]
    return up, [name for name in checks if name not in up]


async def _within_limit(check: Awaitable[bool]) -> bool:
    """Whatever goes wrong with the asking means: away."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await check
    except Exception:  # noqa: BLE001 - the answer is the same for every one
        return False


async def _postgres(resources: Resources) -> bool:
    with translated():
        return bool(await resources.pool.fetchval("SELECT true"))


async def _temporal(resources: Resources) -> bool:
    request = DescribeNamespaceRequest(namespace=resources.temporal.namespace)
    await resources.temporal.workflow_service.describe_namespace(request)
    return True


async def _bitcoind(resources: Resources) -> bool:
    """We have no credentials for it here, so any HTTP answer will do."""
    try:
        await resources.http.get(resources.settings.bitcoind_url.get_secret_value())
    except httpx.HTTPError:
        return False
    return True
