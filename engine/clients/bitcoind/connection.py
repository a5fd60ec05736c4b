"""One connection to bitcoind, for one thread: python-bitcoinrpc with bounds.

The library writes the request and reads the answer's meaning. Around it this module adds what it lacks:

* A total limit of time. A socket's own time-out starts again with each byte. So each call has a `CancelToken`, and
  whoever waits for the call ends it there: the socket is shut down, which wakes the thread at once.
* A limit of size, before and while an answer is read.
* Batches, which the library cannot read from nodes ≥ 28.
* Silence. The library writes whole requests, passphrases included, to a logger of its own at DEBUG. It gets one that
  no configuration can reach.
* The credentials, which stay out of the library's URL: it does not percent-decode them.
"""

import http.client
import json
import logging
import select
import socket
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from bitcoinrpc import authproxy

from engine.clients.bitcoind.fault import RpcFault

authproxy.log = logging.Logger(authproxy.log.name, logging.CRITICAL + 1)  # noqa: LOG001 - out of reach
authproxy.EncodeDecimal = None  # it would send a Decimal as a float; now that is a TypeError

MAX_ANSWER_BYTES = 256 * 2**20
_CONNECT_S = 10
_CHUNK_BYTES = 2**20
_LIBRARY_CODES = (-342, -343)
"""Errors of the library, which have the shape of bitcoind's."""
_JSON = {"Content-Type": "application/json"}
BROKEN = (OSError, http.client.HTTPException)
"""What a socket and http.client raise for a connection that cannot be made or breaks."""
MEANINGLESS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What the library raises for an answer that is no answer to the call."""
Call = tuple[str, Sequence[object]]


class HttpRefusal(Exception):
    """An answer that is not bitcoind's JSON: 401, 403, 503 or another status. No call has been carried out."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


class TooLarge(Exception):
    """The answer exceeds `MAX_ANSWER_BYTES`. It has not been read."""


class CancelToken:
    """One call, which another thread may cancel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cancelled = False
        self.sent = False
        """Whether any of the last try's request may have reached bitcoind."""

    def attach(self, connected: socket.socket) -> None:
        """The call uses this socket from now on. Raises ConnectionAbortedError if the call has been cancelled."""
        with self._lock:
            if self._cancelled:
                raise ConnectionAbortedError
            self._socket, self.sent = connected, True

    def detach(self) -> None:
        """The call is over, and the socket may serve another one."""
        with self._lock:
            self._socket = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the call any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Break the connection if the call still uses it. A repeat does nothing."""
        with self._lock:
            self._cancelled = True
            if self._socket is not None:
                _shut_down(self._socket)


class Connection(http.client.HTTPConnection):
    """A connection that one thread uses, for one call at a time. It connects by itself."""

    debuglevel = 0  # http.client would print the Authorization header
    authorization = ""
    _token = CancelToken()

    def begin(self, token: CancelToken, timeout_s: float) -> None:
        """The next call is this one. A connection that bitcoind has closed meanwhile is made anew."""
        self._token = token
        token.sent = False
        self.timeout = min(timeout_s, _CONNECT_S)
        if self.sock is not None and _is_readable(self.sock):
            self.close()
        if self.sock is not None:
            self.sock.settimeout(timeout_s)
            token.attach(self.sock)

    def connect(self) -> None:
        """As HTTPConnection. Raises ConnectionAbortedError if the call has been cancelled meanwhile."""
        super().connect()
        self._token.attach(self.sock)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,  # noqa: ANN401 - as HTTPConnection
        headers: Mapping[str, Any] = _JSON,
        *,
        encode_chunked: bool = False,
    ) -> None:
        """As HTTPConnection, with the connection's own credentials."""
        own = {**headers, "Authorization": self.authorization}
        super().request(method, url, body, own, encode_chunked=encode_chunked)


class TlsConnection(Connection, http.client.HTTPSConnection):
    """The same over TLS, for a bitcoind behind a proxy."""


class Proxy(authproxy.AuthServiceProxy):  # type: ignore[misc] # published without types
    """Requests over a connection to one path; their answers come back as JSON, with Decimal for numbers with a point.

    Both kinds raise HttpRefusal, TooLarge, ValueError for what is not JSON-RPC, and any error of the socket or of
    http.client. After each of these the connection must be closed.
    """

    def __init__(self, connection: Connection, path: str, method: str, timeout_s: float) -> None:
        host = f"[{connection.host}]" if ":" in connection.host else connection.host
        super().__init__(f"http://-:-@{host}:{connection.port}{path}", method, timeout_s, connection)
        self._connection, self._path = connection, path

    def ask(self, params: Sequence[object]) -> Any:  # noqa: ANN401 - JSON
        """One call. Raises RpcFault when bitcoind answers with an error."""
        try:
            return self(*params)
        except authproxy.JSONRPCException as error:
            if error.code in _LIBRARY_CODES:
                raise ValueError("neither a result nor an error") from None
            _raise_fault(error.error)

    def ask_all(self, calls: Sequence[Call]) -> list[Any]:
        """Calls that bitcoind works through in this order, however each ends. An error stands as an RpcFault."""
        requests = [
            {"version": "1.1", "id": number, "method": method, "params": list(params)}
            for number, (method, params) in enumerate(calls)
        ]
        self._connection.request("POST", self._path, json.dumps(requests))
        answers = self._get_response()
        if isinstance(answers, dict):
            _raise_fault(answers.get("error"))
        found = {each["id"]: each for each in answers}
        if len(found) != len(answers) or set(found) != set(range(len(calls))):
            raise ValueError("the answers of a batch are not those of its calls")
        return [_result(found[number]) for number in range(len(calls))]

    def _get_response(self) -> Any:  # noqa: ANN401 - JSON
        """The library reads each answer by this method."""
        answer = self._connection.getresponse()
        if (answer.getheader("Content-Type") or "").partition(";")[0].strip() != "application/json":
            raise HttpRefusal(answer.status, answer.reason)
        return json.loads(_read(answer), parse_float=Decimal, parse_constant=_no_constant)


def _result(answer: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if answer.get("error") is None:
        return answer["result"]
    try:
        _raise_fault(answer["error"])
    except RpcFault as fault:
        return fault


def _raise_fault(error: object) -> NoReturn:
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise ValueError("an error without a code")  # noqa: TRY004 - it is the answer that is wrong
    raise RpcFault(error["code"], str(error.get("message", "")))


def _read(answer: http.client.HTTPResponse) -> bytes:
    if answer.length is not None:
        if answer.length > MAX_ANSWER_BYTES:
            raise TooLarge
        return answer.read()
    chunks, size = [], 0
    while chunk := answer.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _is_readable(connected: socket.socket) -> bool:
    """Between calls bitcoind has nothing to say: what can be read is the end of the connection."""
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


def _shut_down(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
