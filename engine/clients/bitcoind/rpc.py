"""bitcoind's JSON-RPC: calls from asyncio, carried out by threads of their own.

Each thread has one connection, because a shared one mixes answers up. A connection is dropped after any error that is
not bitcoind's own answer, and the next call makes a new one. A call is repeated at most once after a broken
connection, only if the caller allows it; and once more with credentials that were read anew, because bitcoind has not
looked at a call that it refused.

A wallet that bitcoind has not loaded is loaded, for its next start too, and the call made again.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.clients.bitcoind import fault as faults
from engine.clients.bitcoind.credential import Address, Credential
from engine.clients.bitcoind.fault import Reason, RpcFault, outcome_unknown, unavailable, words
from engine.clients.bitcoind.line import (
    BROKEN,
    MEANINGLESS,
    Call,
    Exchange,
    Flight,
    HttpRefusal,
    Line,
    SecureLine,
    TooLarge,
)
from engine.domain.errors import OutcomeUnknown, Unavailable

__all__ = ["Rpc", "RpcFault"]

_log = logging.getLogger(__name__)
_UNAUTHORIZED, _FORBIDDEN, _OVERLOADED = 401, 403, 503

Work = Callable[[Line, float], Any]


class Rpc:
    """One bitcoind. Create it in the process that uses it, and close it."""

    def __init__(self, url: str, auth_file: Path | None = None, *, threads: int = 8) -> None:
        """`url` may hold percent-encoded `user:password`. `auth_file` holds them in bitcoind's cookie format and is
        preferred while it exists. Raises ValueError for a URL without meaning.
        """
        address = Address(url)
        self._address, self._credential = address, Credential(address, auth_file)
        self._local = threading.local()
        self._lines: list[Line] = []
        self._flights: set[Flight] = set()
        self._loading = asyncio.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="bitcoind")

    async def close(self) -> None:
        """End all calls and connections. A repeat does nothing."""
        for flight in self._flights:
            flight.end()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)
        for line in self._lines:
            line.close()

    async def call(
        self, method: str, *params: object, wallet: str | None = None, timeout_s: float = 30, repeat: bool = True
    ) -> Any:  # noqa: ANN401 - JSON
        """The result of one call; numbers with a point are Decimal. Send amounts as text.

        `timeout_s` bounds everything: waiting for a thread, loading the wallet, the repeat, and an answer that comes
        slowly. Raises RpcFault for an error of bitcoind, Unavailable otherwise; and OutcomeUnknown if `repeat` is
        False and the request was sent without an answer.
        """
        deadline = time.monotonic() + timeout_s
        ask = partial(self._ask, method, params, wallet, deadline, repeat=repeat)
        try:
            return await ask()
        except RpcFault as fault:
            if fault.code != faults.WALLET_NOT_FOUND or wallet is None:
                raise
        await self._load(wallet, deadline)
        return await ask()

    async def batch(
        self, calls: Sequence[Call], *, wallet: str | None = None, timeout_s: float = 60, repeat: bool = True
    ) -> list[Any | RpcFault]:
        """Results and faults in the order of the calls, which bitcoind works through in that order.

        Other calls may come in between. Limits and errors are those of `call`.
        """
        if not calls:
            return []
        deadline = time.monotonic() + timeout_s
        name = f"{calls[0][0]} and others" if len({method for method, _ in calls}) > 1 else calls[0][0]

        def work(line: Line, left_s: float) -> Any:  # noqa: ANN401 - JSON
            return Exchange(line, _path(wallet), "", left_s).ask_all(calls)

        async def ask_all() -> list[Any | RpcFault]:
            answers: list[Any | RpcFault] = await self._send(work, name, deadline, repeat=repeat)
            for each in answers:
                if isinstance(each, RpcFault):
                    _raise_if_away(each)
            return answers

        answers = await ask_all()
        if wallet is not None and all(_is_not_loaded(each) for each in answers):
            await self._load(wallet, deadline)
            answers = await ask_all()
        return answers

    async def _ask(
        self, method: str, params: Sequence[object], wallet: str | None, deadline: float, *, repeat: bool
    ) -> Any:  # noqa: ANN401 - JSON
        def work(line: Line, left_s: float) -> Any:  # noqa: ANN401 - JSON
            return Exchange(line, _path(wallet), method, left_s).ask(params)

        try:
            return await self._send(work, method, deadline, repeat=repeat)
        except RpcFault as fault:
            _raise_if_away(fault)
            raise

    async def _load(self, wallet: str, deadline: float) -> None:
        """Load a wallet, now and at each start of bitcoind. Calls that wait for it load it once."""
        try:
            async with asyncio.timeout(max(0, deadline - time.monotonic())):
                await self._loading.acquire()
        except TimeoutError:
            raise unavailable(Reason.BUSY, f"bitcoind is loading the wallet {wallet}.") from None
        try:
            await self._ask("loadwallet", (wallet, True), None, deadline, repeat=True)
            _log.warning("bitcoind had not loaded the wallet %s; it is loaded again", wallet)
        except RpcFault as fault:
            if fault.code != faults.ALREADY_LOADED:
                raise await self._why_not_loaded(wallet, fault, deadline) from None
        finally:
            self._loading.release()

    async def _why_not_loaded(self, wallet: str, fault: RpcFault, deadline: float) -> Unavailable:
        said = words(fault.message)
        if fault.code == faults.WALLET and "already loading" in said:
            return unavailable(Reason.BUSY, f"bitcoind is loading the wallet {wallet}.")
        if fault.code == faults.WALLET and "pruned" in said:
            return unavailable(Reason.PRUNED, f"bitcoind has pruned blocks that the wallet {wallet} needs: {said}")
        if fault.code == faults.WALLET_NOT_FOUND:
            with faults.translated("listwalletdir"):
                stored = await self._ask("listwalletdir", (), None, deadline, repeat=True)
            if wallet not in [each["name"] for each in stored["wallets"]]:
                return unavailable(Reason.WALLET_MISSING, f"bitcoind has no wallet {wallet}: restore it from a backup.")
        return unavailable(Reason.WALLET_NOT_LOADED, f"bitcoind cannot load the wallet {wallet}: {said}")

    # From here on: one request, on a thread

    async def _send(self, work: Work, name: str, deadline: float, *, repeat: bool) -> Any:  # noqa: ANN401 - JSON
        flight = Flight()
        self._flights.add(flight)
        try:
            async with asyncio.timeout(max(0, deadline - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(
                    self._executor, partial(self._fly, work, flight, name, deadline, repeat=repeat)
                )
        except TimeoutError:
            raise _unanswered(flight, Reason.TIMED_OUT, name, repeat=repeat) from None
        finally:
            flight.end()
            self._flights.discard(flight)

    def _fly(self, work: Work, flight: Flight, name: str, deadline: float, *, repeat: bool) -> Any:  # noqa: ANN401
        """On a thread: the call, and what may be repeated of it. The caller's own limit ends it early."""
        repeats_left = int(repeat)
        reread = False
        while True:
            line = self._own_line()
            try:
                return _use(line, work, flight, deadline)
            except HttpRefusal as refusal:
                if refusal.status == _UNAUTHORIZED and not reread and self._credential.has_changed(line.authorization):
                    reread = True
                    continue
                raise _refusal(name, refusal) from None
            except TooLarge:
                raise unavailable(Reason.CUT_OFF, f"The answer of bitcoind to {name} is too large.") from None
            except TimeoutError:
                raise _unanswered(flight, Reason.TIMED_OUT, name, repeat=repeat) from None
            except (*BROKEN, *MEANINGLESS) as error:
                if not flight.sent and isinstance(error, MEANINGLESS):
                    raise  # the call itself is wrong: nothing was sent
                if flight.sent and repeats_left and time.monotonic() < deadline and not flight.ended:
                    repeats_left -= 1
                    continue
                raise _unanswered(flight, Reason.CUT_OFF, name, repeat=repeat, why=error) from None

    def _own_line(self) -> Line:
        line: Line | None = getattr(self._local, "line", None)
        if line is None:
            line = (SecureLine if self._address.secure else Line)(self._address.host, self._address.port)
            self._local.line = line
            self._lines.append(line)
        line.authorization = self._credential.authorization()
        return line


def _use(line: Line, work: Work, flight: Flight, deadline: float) -> Any:  # noqa: ANN401 - JSON
    """One try. The line stays open only after an answer of bitcoind."""
    left_s = max(0.001, deadline - time.monotonic())
    try:
        line.begin(flight, left_s)
        result = work(line, left_s)
    except RpcFault:
        flight.leave()
        raise
    except BaseException:
        flight.leave()
        line.close()
        raise
    flight.leave()
    return result


def _path(wallet: str | None) -> str:
    return "/" if wallet is None else f"/wallet/{quote(wallet, safe='')}"


def _is_not_loaded(answer: object) -> bool:
    return isinstance(answer, RpcFault) and answer.code == faults.WALLET_NOT_FOUND


def _raise_if_away(fault: RpcFault) -> None:
    if fault.code == faults.WARMING_UP:
        raise unavailable(Reason.WARMING_UP, f"bitcoind is starting: {words(fault.message)}") from None
    if fault.code == faults.SHUTTING_DOWN:
        raise unavailable(Reason.UNREACHABLE, "bitcoind is shutting down.") from None


def _refusal(name: str, refusal: HttpRefusal) -> Unavailable:
    if refusal.status == _OVERLOADED:
        return unavailable(Reason.BUSY, f"bitcoind is overloaded and did not take {name} (503).")
    remedy = {
        _UNAUTHORIZED: "check its user and password",
        _FORBIDDEN: "check rpcallowip and rpcwhitelist",
    }.get(refusal.status, "check that its URL leads to bitcoind")
    return unavailable(Reason.REFUSED, f"bitcoind refuses {name} ({words(str(refusal))}): {remedy}.")


def _unanswered(
    flight: Flight, reason: Reason, name: str, *, repeat: bool, why: BaseException | None = None
) -> Unavailable | OutcomeUnknown:
    """No answer. Only the kind of a connection's error is told: its text may hold an answer."""
    kind = f" ({type(why).__name__})" if why is not None else ""
    if not flight.sent and reason is not Reason.TIMED_OUT:
        return unavailable(Reason.UNREACHABLE, f"bitcoind cannot be reached for {name}{kind}.")
    sentence = {
        Reason.TIMED_OUT: f"bitcoind did not answer {name} in time.",
        Reason.CUT_OFF: f"bitcoind's answer to {name} was cut off{kind}.",
    }[reason]
    return unavailable(reason, sentence) if repeat or not flight.sent else outcome_unknown(sentence)
