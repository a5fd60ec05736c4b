"""Whether everything that this process needs answers: Postgres, Redis, Temporal, each Lightning node and bitcoind."""

import asyncio
from collections.abc import Awaitable

import httpx
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from api.service.resources import Resources
from engine.ledger.database import answers

_LIMIT_S = 2


async def look(resources: Resources) -> tuple[list[str], list[str]]:
    """What is up, and what is down; all are asked at once, and silence means down."""
    checks: dict[str, Awaitable[bool]] = {
        "postgres": answers(resources.pool),
        "redis": resources.cache.ping(),
        "temporal": _temporal(resources),
        **{name: node.is_active() for name, node in resources.invoices.items()},
        "bitcoind": _bitcoind(resources),
    }
    found = await asyncio.gather(*(_within_limit(check) for check in checks.values()))
    up = [name for name, answer in zip(checks, found, strict=True) if answer]
    return up, [name for name in checks if name not in up]


async def _within_limit(check: Awaitable[bool]) -> bool:
    """Every error means: away."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await check
    except Exception:  # noqa: BLE001 - the answer is the same for every one
        return False


async def _temporal(resources: Resources) -> bool:
    request = DescribeNamespaceRequest(namespace=resources.temporal.namespace)
    await resources.temporal.workflow_service.describe_namespace(request)
    return True


async def _bitcoind(resources: Resources) -> bool:
    """The API has no credentials for bitcoind, so any HTTP answer will do."""
    try:
        await resources.http.get(resources.settings.bitcoind_url.get_secret_value())
    except httpx.HTTPError:
        return False
    return True
