"""`./run call`, against a server that says what it was asked."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.local import call
from infra.local.home import Home, State
from infra.local.parts.store import Failed

pytestmark = pytest.mark.unit


class Echo(BaseHTTPRequestHandler):
    """Answers 409 with what it was asked, so that an error is seen to be an answer too."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = {"method": self.command, "path": self.path, "body": body, **dict(self.headers)}
        self.send_response(409)
        self.send_header("Idempotency-Replayed", "true")
        self.end_headers()
        self.wfile.write(json.dumps(asked).encode())

    do_GET = do_POST  # noqa: N815 - the name that http.server asks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose API is the echo."""
    home = Home(tmp_path / "home")
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        ports = home.settle_ports(tmp_path / "registry") | {"api-1": server.server_port}
        monkeypatch.setattr(Home, "ports", lambda _: ports)
        monkeypatch.setattr(call, "running_stack", lambda: (home, State(ready=True)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield home
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("own_home")
def test_a_request_carries_key_body_and_headers_and_any_answer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("POST", "/v1/payments?a=b", "the-key", "-H", "Idempotency-Key: lunch:1", "--json", '{"memo": "žába"}')

    assert call.call(words) == 0

    asked = json.loads(capsys.readouterr().out)
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/v1/payments?a=b", '{"memo": "žába"}')
    assert (asked["Authorization"], asked["Idempotency-Key"]) == ("Bearer the-key", "lunch:1")
    assert asked["Content-Type"] == "application/json"


@pytest.mark.usefixtures("own_home")
def test_a_public_page_needs_no_key_and_the_head_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert call.call(("GET", "/healthz", "-i")) == 0

    head, _, body = capsys.readouterr().out.partition("\n\n")
    assert head.splitlines()[0] == "HTTP/1.1 409 Conflict"
    assert "Idempotency-Replayed: true" in head.splitlines()
    assert "Authorization" not in json.loads(body)


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize(
    ("words", "why"), [(("GET", "/a b"), "gave no answer"), (("GET", "/", "-H", "no header"), "is no header")]
)
def test_a_request_that_cannot_be_sent_is_named(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(Failed, match=why):
        call.call(words)


def test_an_api_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    home.settle_ports(tmp_path / "registry")
    monkeypatch.setattr(call, "running_stack", lambda: (home, State(ready=True)))

    with pytest.raises(Failed, match=r"gave no answer .*refused"):
        call.call(("GET", "/healthz"))
