"""Liveness and readiness of this process, for load balancers and people; no API key is needed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.access import get_resources
from api.http.errors import MEDIA_TYPE, problem
from api.service.readiness import look
from api.service.remembered import Remembered
from api.service.resources import Resources

router = APIRouter(tags=["health"])

_LIFE_S = 1


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
    """No key needed. Asks PostgreSQL, Redis, Temporal, each Lightning node and bitcoind at once, for 2 s at most.

    All callers share one answer for a second.
    """
    state = request.app.state
    if getattr(state, "readiness", None) is None:
        state.readiness = Remembered(lambda: look(resources), _LIFE_S)
    up, down = await state.readiness.get()
    if not down:
        return ReadyOut(up=up, down=down)
    detail = f"Away: {', '.join(down)}."
    return problem(
        503, "temporarily_unavailable", detail, fields={"up": up, "down": down}, headers={"Retry-After": "1"}
    )
