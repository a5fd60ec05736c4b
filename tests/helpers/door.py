"""A real API process on a port of its own, with everything behind it away, and raw sockets to knock with."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.commands import ROOT
from infra.local.services import api_command
from infra.local.stack import wait_until

ADMIN_KEY = "an-admin-key-for-tests"
_AWAY = "127.0.0.1:1"
_START_LIMIT_S = 60
MIB = 2**20


@dataclass
class Door:
    """One API process."""

    process: subprocess.Popen[bytes]
    port: int

    def rss(self) -> int:
        """Bytes of memory it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_s(self) -> float:
        """What it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connect(self, *, source: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
        """One connection, whose reads end with TimeoutError after 30 s."""
        knock = socket.socket()
        if receive_buffer is not None:
            knock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        knock.settimeout(30)
        try:
            knock.bind((source, 0))
            knock.connect(("127.0.0.1", self.port))
        except OSError:
            knock.close()
            raise
        return knock

    def ask(self, request: bytes, *, source: str = "127.0.0.1") -> bytes:
        """All that is answered to these bytes until the connection ends."""
        with self.connect(source=source) as knock:
            knock.sendall(request)
            return drain(knock)

    def is_answering(self) -> bool:
        """Whether somebody else is served meanwhile."""
        return self.ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def drain(knock: socket.socket) -> bytes:
    """What comes until the other side ends the connection, in whatever way."""
    found = b""
    try:
        while piece := knock.recv(65_536):
            found += piece
    except ConnectionError:
        pass
    return found


def ended(knock: socket.socket) -> bool:
    """Whether the other side has ended the connection, after what it still had to say."""
    drain(knock)
    return True


def settings_of(folder: Path, changed: Mapping[str, str]) -> dict[str, str]:
    """What the process is told; names without the prefix."""
    empty = folder / "empty"
    empty.write_bytes(b"")
    node = f'{{"address": "{_AWAY}", "tls_cert": "{empty}", "macaroon": "{empty}"}}'
    told = {
        "POSTGRES_DSN": f"postgresql://nobody@{_AWAY}/nothing",
        "REDIS_URL": f"redis://{_AWAY}/0",
        "TEMPORAL_ADDRESS": _AWAY,
        "BITCOIN_NETWORK": "regtest",
        "NODES": f'{{"lnd-1": {node}}}',
        "BITCOIND_URL": f"http://{_AWAY}",
        "ADMIN_KEY": ADMIN_KEY,
        "PREIMAGE_SECRET": "07" * 32,
        "PUBLIC_URL": "http://pay.test",
        **changed,
    }
    return {f"MILLRACE_{name}": value for name, value in told.items()}


@contextmanager
def open_door(
    folder: Path, settings: Mapping[str, str], environ: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[Door]:
    """The API as `./run up` starts it, until the end of the block; `settings` without their prefix.

    `before` stands before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    log = folder / "api.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *before, *map(str, api_command(Path(sys.executable), port))],
            cwd=ROOT,
            env={**inherited, **settings_of(folder, settings), **(environ or {})},
            stdout=out,
            stderr=out,
        )
    door = Door(process, port)
    try:
        wait_until(lambda: _serves(door), f"the API, see {log}", _START_LIMIT_S)
        yield door
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _serves(door: Door) -> bool:
    assert door.process.poll() is None, "the API ended"
    try:
        return door.is_answering()
    except OSError:
        return False
