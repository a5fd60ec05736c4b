"""A fake bitcoind: answers each method with what a test has put there, over real HTTP.

For what the real one says only when it warms up, shuts down, is of another version, or is broken.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeBitcoind:
    """Its answers, which a test sets. The last answer of a method stays."""

    def __init__(self) -> None:
        self._answers = defaultdict[str, list[dict[str, Any]]](list)
        self.calls: list[str] = []
        self.raw: bytes | None = None
        """The body of every answer, in place of JSON-RPC."""
        self.content_type = "application/json"
        self.chunked = False
        self.url = ""

    def result(self, method: str, result: Any) -> None:
        self._answers[method].append({"result": result, "error": None})

    def fault(self, method: str, code: int, message: str) -> None:
        self._answers[method].append({"result": None, "error": {"code": code, "message": message}})

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(call["method"])
        answers = self._answers[call["method"]]
        return {**(answers.pop(0) if len(answers) > 1 else answers[0]), "id": call["id"]}


@contextmanager
def fake_bitcoind() -> Iterator[FakeBitcoind]:
    fake = FakeBitcoind()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = [fake.answer(each) for each in asked] if isinstance(asked, list) else fake.answer(asked)
            body = json.dumps(said).encode() if fake.raw is None else fake.raw
            self.send_response(200)
            self.send_header("Content-Type", fake.content_type)
            if fake.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            else:
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://me:secret@127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
