"""The folder of one stack: its ports, its secrets, its data, its logs and its supervisor's state.

Two stacks never share anything but the cache: each home takes a block of ports of its own and keeps it, so that every
process comes back at the same place. The supervisor holds a lock on the home for as long as it lives; the kernel frees
it even after `kill -9`, so "is it running?" has one certain answer.
"""

import fcntl
import json
import os
import random
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from infra.local.parts.store import Failed

NODES = ("lnd-1", "lnd-2", "outside-1", "outside-2")
BANK = ("lnd-1", "lnd-2")
MOST_APIS = 16
PORTS = (
    "postgres",
    "redis",
    "temporal",
    "temporal-ui",
    "bitcoind",
    "bitcoind-zmq",
    *(f"{node}{kind}" for node in NODES for kind in ("", "-peer")),
    *(f"api-{number}" for number in range(1, MOST_APIS + 1)),
)
FIRST_PORT, LAST_PORT = 20_000, 32_000  # Below those that the kernel gives to outgoing connections.
SECRETS = {
    "admin_key": 24,
    "preimage_secret": 32,
    "postgres_password": 16,
    "owner_password": 16,
    "app_password": 16,
    "bitcoind_password": 16,
}


@dataclass
class ProcessState:
    """What the supervisor knows of one process. `state` is starting, ready, held, failing or stopped."""

    state: str = "stopped"
    pid: int | None = None
    restarts: int = 0


@dataclass
class State:
    """What the supervisor says of the stack; the file is replaced whole at every change."""

    pid: int = 0
    ready: bool = False
    failure: str | None = None
    doing: str = ""
    processes: dict[str, ProcessState] = field(default_factory=dict)


class Home:
    """One stack's folder; made when it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("", "logs", "hold", "run"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failed(
                f"The stack's folder {folder} cannot be written ({error.strerror}): set MILLRACE_HOME to one that can."
            ) from None

    @classmethod
    def current(cls, root: Path) -> "Home":
        """`MILLRACE_HOME`, else `.millrace` in the checkout."""
        return cls(Path(os.environ.get("MILLRACE_HOME") or root / ".millrace"))

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.folder / "logs" / f"{name}.log"

    def hold(self, name: str) -> Path:
        """While this file exists, the supervisor keeps the process stopped."""
        return self.folder / "hold" / name

    def holds(self) -> list[str]:
        """The processes that somebody holds."""
        return [each.name for each in (self.folder / "hold").iterdir()]

    def macaroon(self, node: str, role: str) -> Path:
        """A node's macaroon for one role: `admin`, or one of those baked for us (`receive`, `worker`)."""
        if role == "admin":
            return self.folder / node / "data/chain/bitcoin/regtest/admin.macaroon"
        return self.folder / "macaroons" / node / f"{role}.macaroon"

    def certificate(self, node: str) -> Path:
        """A node's TLS certificate."""
        return self.folder / node / "tls.cert"

    @property
    def bitcoind_auth(self) -> Path:
        """`user:password` for bitcoind's RPC, readable by its owner only."""
        return self.folder / "bitcoind.auth"

    def secrets(self) -> dict[str, str]:
        """Made once per home, readable by its owner only."""
        file = self.folder / "secrets.json"
        if not file.exists():
            replace(file, {name: secrets.token_hex(size) for name, size in SECRETS.items()})
        found: dict[str, str] = json.loads(file.read_text())
        return found

    def ports(self) -> dict[str, int]:
        """Those of the running or last stack; empty before the first start."""
        file = self.folder / "ports.json"
        found: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def settle_ports(self, registry: Path) -> dict[str, int]:
        """The ports for a start: the same as before while they are free, else a new block that no other home has."""
        ports = self.ports()
        if set(ports) == set(PORTS) and _wait_free(ports, limit_s=10):
            return ports
        registry.mkdir(parents=True, exist_ok=True)
        with (registry / "lock").open("w") as turn:  # Two that look at the same moment would take the same block.
            fcntl.flock(turn, fcntl.LOCK_EX)
            ports = self._new_block(registry)
            replace(self.folder / "ports.json", ports)
        return ports

    def _new_block(self, registry: Path) -> dict[str, int]:
        blocks = list(range(FIRST_PORT, LAST_PORT - len(PORTS), len(PORTS)))
        random.shuffle(blocks)
        for first in blocks:
            owner = registry / str(first)
            if (
                owner.exists()
                and Path(owner.read_text()) != self.folder
                and (Path(owner.read_text()) / "ports.json").exists()
            ):
                continue
            ports = {name: first + number for number, name in enumerate(PORTS)}
            if _wait_free(ports, limit_s=0):
                owner.write_text(str(self.folder))
                return ports
        raise Failed(f"No free ports between {FIRST_PORT} and {LAST_PORT}: stop other stacks with ./run down.")

    def read_state(self) -> State:
        """What the last supervisor said; trust it only while `running()`."""
        file = self.folder / "state.json"
        if not file.exists():
            return State()
        said: dict[str, Any] = json.loads(file.read_text())
        said["processes"] = {name: ProcessState(**process) for name, process in said["processes"].items()}
        return State(**said)

    def write_state(self, state: State) -> None:
        """Replace what the supervisor says."""
        replace(self.folder / "state.json", asdict(state))

    def claim(self) -> IO[str] | None:
        """The supervisor's lock, held until the file is closed or the process dies; none when another has it."""
        file = (self.folder / "lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def running(self) -> bool:
        """Whether a supervisor lives."""
        lock = self.claim()
        if lock is None:
            return True
        lock.close()
        return False


def replace(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old content or the new, and only the owner may read it."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(content, out, indent=1)
    fresh.rename(file)


def _wait_free(ports: Mapping[str, int], limit_s: float) -> bool:
    """Whether all can be listened on; a supervisor killed just now leaves its processes a moment to die."""
    until = time.monotonic() + limit_s
    while not all(_free(port) for port in ports.values()):
        if time.monotonic() >= until:
            return False
        time.sleep(0.1)
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
