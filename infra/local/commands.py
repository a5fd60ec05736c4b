"""The commands that start a stack, or look at and talk to a running one; standard library only."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local import environment
from infra.local.bitcoin_rpc import BitcoinRpc, RpcError
from infra.local.home import Home, State
from infra.local.parts.store import Failed, end_of, remove
from infra.local.tools import Tools

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_LIMIT_S = 120
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(arguments: Sequence[str], provision: Callable[[], Tools]) -> int:
    """Become the supervisor, or with `--detach` start one and return when the stack is ready."""
    detach = "--detach" in arguments
    rest = [word for word in arguments if word != "--detach"]
    home = Home.current(ROOT)
    if home.running():
        if not detach:
            raise Failed(f"A stack is running in {home.folder}: ./run status shows it, ./run down stops it.")
        print(f"a stack is running in {home.folder} already", file=sys.stderr)
        return _follow(home, None, home.log("supervisor").stat().st_size if home.log("supervisor").exists() else 0)
    tools = provision()
    command = [str(tools.python), "-m", "infra.local.serve", *rest]
    environ = {
        **os.environ,
        "MILLRACE_TOOLS": tools.to_json(),
        "MILLRACE_HOME": str(home.folder),
        "GRPC_VERBOSITY": "NONE",
    }
    if not detach:
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # Blocked until the supervisor is ready for them.
        os.execve(tools.python, command, environ)
    with home.log("supervisor").open("ab") as log:
        begin = log.tell()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
        )
    return _follow(home, child, begin)


def _follow(home: Home, child: "subprocess.Popen[bytes] | None", begin: int) -> int:
    """Show what the supervisor says until its stack is ready; Ctrl-C meanwhile stops a stack that we started."""
    try:
        with home.log("supervisor").open("rb") as log:
            log.seek(begin)
            while True:
                over = child.poll() is not None if child else not home.running()
                sys.stdout.write(log.read().decode(errors="replace"))
                sys.stdout.flush()
                state = home.read_state()
                if over and child is not None and state.failure is not None and state.pid == child.pid:
                    return 1  # It has just said why.
                if over:
                    raise Failed(f"The stack is not up: {why_over(home, 0, begin)}")
                if state.ready and (child is None or state.pid == child.pid):
                    sys.stdout.write(log.read().decode(errors="replace"))
                    return 0
                time.sleep(0.05)
    except KeyboardInterrupt:
        if child is not None:
            child.terminate()
            child.wait()
        raise


def why_over(home: Home, pid: int, begin: int) -> str:
    """The reason that the supervisor `pid` gave for its end, or else what it said last from byte `begin` on."""
    state, log = home.read_state(), home.log("supervisor")
    if state.failure is not None and state.pid == pid:
        return state.failure
    return f"the end of {log} says why.{end_of(log, begin)}"


def down(_arguments: Sequence[str]) -> int:
    """Stop the stack and keep its data; nothing to stop is fine too."""
    home = Home.current(ROOT)
    until = time.monotonic() + STOP_LIMIT_S
    asked = False
    while home.running():
        pid = home.read_state().pid
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            raise Failed(
                f"The stack did not stop within {STOP_LIMIT_S} s and was killed: see {home.log('supervisor')}."
            )
        if not asked and pid:
            os.kill(pid, signal.SIGTERM)
            asked = True
        time.sleep(0.1)
    return 0


def reset(_arguments: Sequence[str]) -> int:
    """Stop the stack and throw away all that its home holds."""
    down([])
    remove(Home.current(ROOT).folder)
    return 0


def status(_arguments: Sequence[str]) -> int:
    """One line per process; exit code 0 only while all are ready."""
    home = Home.current(ROOT)
    if not home.running():
        print(f"no stack is running in {home.folder}")
        return 3
    state, ports = home.read_state(), home.ports()
    for name, process in state.processes.items():
        port = f"port {ports[name]}" if name in ports else ""
        restarts = f"restarted {process.restarts}×" if process.restarts else ""
        pid = f"pid {process.pid}" if process.pid else ""
        print(f"{name:<11} {process.state:<9} {pid:<12} {port:<11} {restarts}".rstrip())
    return 0 if state.ready and all(process.state == "ready" for process in state.processes.values()) else 1


def env(_arguments: Sequence[str]) -> int:
    """`export` lines for any client of the running stack."""
    home, state = running_stack()
    for name, value in environment.exported(home, state).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def mine(arguments: Sequence[str]) -> int:
    """Mine blocks."""
    if len(arguments) > 1 or not all(word.isdigit() and int(word) > 0 for word in arguments):
        raise Failed("How many blocks? For example: ./run mine 6")
    home, _ = running_stack()
    chain = BitcoinRpc(environment.bitcoind_url(home, with_credentials=True))
    try:
        chain.mine(int(arguments[0]) if arguments else 1)
        print(f"height {chain.call('getblockcount')}")
    except (OSError, RpcError) as error:
        raise Failed(f"bitcoind does not mine ({error}): ./run status shows whether it runs.") from None
    return 0


def running_stack() -> tuple[Home, State]:
    """The stack that runs and is ready; raises `Failed` when there is none."""
    home = Home.current(ROOT)
    state = home.read_state()
    if not home.running() or not state.ready:
        raise Failed(f"No stack is ready in {home.folder}: ./run up --detach starts one.")
    return home, state


QUICK: dict[str, Callable[[Sequence[str]], int]] = {
    "down": down,
    "reset": reset,
    "status": status,
    "env": env,
    "mine": mine,
}
