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
from engine.clients.bitcoind.connection import (
    BROKEN,
    MEANINGLESS,
    Call,
    CancelToken,
    Connection,
    HttpRefusal,
    Proxy,
    TlsConnection,
    TooLarge,
)
from engine.clients.bitcoind.credential import Address, Credential
from engine.clients.bitcoind.fault import Reason, RpcFault, outcome_unknown, unavailable, words
from engine.domain.errors import OutcomeUnknown, Unavailable

__all__ = ["Rpc", "RpcFault"]

_log = logging.getLogger(__name__)
_UNAUTHORIZED, _FORBIDDEN, _OVERLOADED = 401, 403, 503

Work = Callable[[Connection, float], Any]


class Rpc:
    """One bitcoind. Create it in the process that uses it, and close it."""

    def __init__(self, url: str, auth_file: Path | None = None, *, threads: int = 8) -> None:
        """`url` may hold percent-encoded `user:password`. `auth_file` holds them in bitcoind's cookie format and is
        preferred while it exists. Raises ValueError for a URL without meaning.
        """
        address = Address(url)
        self._address, self._credential = address, Credential(address, auth_file)
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._tokens: set[CancelToken] = set()
        self._loading = asyncio.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="bitcoind")

    async def close(self) -> None:
        """End all calls and connections. A repeat does nothing."""
        for token in self._tokens:
            token.cancel()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)
        for connection in self._connections:
            connection.close()

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

        def work(connection: Connection, left_s: float) -> Any:  # noqa: ANN401 - JSON
            return Proxy(connection, _path(wallet), "", left_s).ask_all(calls)

        async def ask_all() -> list[Any | RpcFault]:
            answers: list[Any | RpcFault] = await self._send(work, name, deadline, repeat=repeat)
            for each in answers:
                if isinstance(each, RpcFault):
                    _raise_if_away(each)
            return answers

        answers = await ask_all()
        not_loaded = [_is_not_loaded(each) for each in answers]
        if wallet is not None and (any(not_loaded) if repeat else all(not_loaded)):
            await self._load(wallet, deadline)
            answers = await ask_all()
        return answers

    async def _ask(
        self, method: str, params: Sequence[object], wallet: str | None, deadline: float, *, repeat: bool
    ) -> Any:  # noqa: ANN401 - JSON
        def work(connection: Connection, left_s: float) -> Any:  # noqa: ANN401 - JSON
            return Proxy(connection, _path(wallet), method, left_s).ask(params)

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
                return unavailable(Reason.WALLET_MISSING, f"bitcoind has no wallet {wallet}; restore a backup: {said}")
        return unavailable(Reason.WALLET_NOT_LOADED, f"bitcoind cannot load the wallet {wallet}: {said}")

    # From here on: one request, on a thread

    async def _send(self, work: Work, name: str, deadline: float, *, repeat: bool) -> Any:  # noqa: ANN401 - JSON
        token = CancelToken()
        self._tokens.add(token)
        try:
            async with asyncio.timeout(max(0, deadline - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(
                    self._executor, partial(self._run, work, token, name, deadline, repeat=repeat)
                )
        except TimeoutError:
            raise _unanswered(token, Reason.TIMED_OUT, name, repeat=repeat) from None
        finally:
            token.cancel()
            self._tokens.discard(token)

    def _run(self, work: Work, token: CancelToken, name: str, deadline: float, *, repeat: bool) -> Any:  # noqa: ANN401
        """On a thread: the call, and what may be repeated of it. The caller's own limit ends it early."""
        repeats_left = int(repeat)
        reread = False
        while True:
            connection = self._own_connection()
            try:
                return _use(connection, work, token, deadline)
            except HttpRefusal as refusal:
                if refusal.status != _UNAUTHORIZED or reread:
                    raise _refusal(name, refusal) from None
                if not self._credential.has_changed(connection.authorization):
                    raise _refusal(name, refusal) from None
                reread = True
            except TooLarge:
                raise unavailable(Reason.CUT_OFF, f"The answer of bitcoind to {name} is too large.") from None
            except TimeoutError:
                raise _unanswered(token, Reason.TIMED_OUT, name, repeat=repeat) from None
            except (*BROKEN, *MEANINGLESS) as error:
                if not token.sent and isinstance(error, MEANINGLESS):
                    raise  # the call itself is wrong: nothing was sent
                if token.sent and repeats_left and time.monotonic() < deadline and not token.cancelled:
                    repeats_left -= 1
                    continue
                raise _unanswered(token, Reason.CUT_OFF, name, repeat=repeat, why=error) from None

    def _own_connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = (TlsConnection if self._address.secure else Connection)(self._address.host, self._address.port)
            self._local.connection = connection
            self._connections.append(connection)
        connection.authorization = self._credential.authorization()
        return connection


def _use(connection: Connection, work: Work, token: CancelToken, deadline: float) -> Any:  # noqa: ANN401 - JSON
    """One try. The connection stays open only after an answer of bitcoind."""
    left_s = max(0.001, deadline - time.monotonic())
    try:
        connection.begin(token, left_s)
        result = work(connection, left_s)
    except RpcFault:
        token.detach()
        raise
    except BaseException:
        token.detach()
        connection.close()
        raise
    token.detach()
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
    token: CancelToken, reason: Reason, name: str, *, repeat: bool, why: BaseException | None = None
) -> Unavailable | OutcomeUnknown:
    """No answer. Only the kind of a connection's error is told: its text may hold an answer."""
    kind = f" ({type(why).__name__})" if why is not None else ""
    if not token.sent and reason is not Reason.TIMED_OUT:
        return unavailable(Reason.UNREACHABLE, f"bitcoind cannot be reached for {name}{kind}.")
    sentence = {
        Reason.TIMED_OUT: f"bitcoind did not answer {name} in time.",
        Reason.CUT_OFF: f"bitcoind's answer to {name} was cut off{kind}.",
    }[reason]
    return unavailable(reason, sentence) if repeat or not token.sent else outcome_unknown(sentence)
