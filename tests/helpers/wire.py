"""What lies between us and both nodes: a proxy before each, and one worker that reaches them through the proxies."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc

from infra.local.home import BANK
from infra.local.stack import Stack
from tests.fixtures.lnd_proxy import Fault, LndProxy, lnd_proxy
from tests.fixtures.own_process import OwnWorker, nodes, own_worker


@dataclass
class Wire:
    """Both proxies, and the worker behind them."""

    proxies: Sequence[LndProxy]
    worker: OwnWorker
    addresses: dict[str, dict[str, str]]
    """Of the proxies, for another process that uses them too."""

    def lose(self, method: str, *, after: int = 0) -> list[Fault]:
        return [proxy.lose(method, after=after) for proxy in self.proxies]

    def delay(self, method: str) -> list[Fault]:
        return [proxy.delay(method) for proxy in self.proxies]

    @contextmanager
    def refuses(
        self, method: str, words: str, status: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    ) -> Iterator[list[Fault]]:
        """Each call of it is answered with this error, and the nodes are not asked."""
        with ExitStack() as entered:
            yield [entered.enter_context(proxy.always(proxy.refuse(method, status, words))) for proxy in self.proxies]

    def calls(self, method: str) -> int:
        return sum(proxy.calls.count(method) for proxy in self.proxies)

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def renew(self) -> None:
        """Without faults and with nothing counted."""
        self.heal()
        for proxy in self.proxies:
            proxy.calls.clear()


@asynccontextmanager
async def open_wire(stack: Stack, **settings: str) -> AsyncIterator[Wire]:
    """The worker has these settings beside the usual ones."""
    async with AsyncExitStack() as entered:
        proxies = {name: await entered.enter_async_context(lnd_proxy(stack, name)) for name in BANK}
        addresses = {name: {"address": proxy.address} for name, proxy in proxies.items()}
        worker = own_worker(stack, {**nodes(stack, "worker", addresses), **settings})
        yield Wire(list(proxies.values()), await entered.enter_async_context(worker), addresses)
