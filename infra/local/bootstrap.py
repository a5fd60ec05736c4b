"""Behind `./run`: provisions what a command needs, then becomes that command.

Runs on the machine's own Python 3.11 or newer with the standard library alone. Commands that only look at or talk to
a running stack provision nothing.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from infra.local import call, commands
from infra.local.parts.provision import Provision, cache_folder
from infra.local.parts.store import Failed, Store
from infra.local.tools import Tools

ROOT = Path(__file__).resolve().parent.parent.parent
USAGE = """Usage: ./run COMMAND

  demo                 start a stack and show what it does
  up [--detach] [--api N] [--workers N]
                       start the stack and supervise it; --detach returns when it is ready
  down                 stop the stack, keep its data
  reset                stop the stack, throw its data away
  status               one line per process
  env                  export lines for any client: eval "$(./run env)"
  call METHOD PATH [KEY] [--json BODY] [-H HEADER] [-i]
                       one request to the running stack's API, with curl's options
  mine [N]             mine N blocks (1)
  outside invoice MSAT | pay BOLT11
                       what a Lightning node that is not ours does, for trying things out
  test [ARGUMENTS]     run pytest; without arguments everything, in three processes,
                       and the slowest twenty tests are named
  check                run the linters and type checkers
  bench [--quick] [--only SCENARIO] [--json FILE]
                       measure payments, workflows and books beside others
  provision            fetch and build every part, and print where each one is

MILLRACE_HOME names the folder of a stack (.millrace), MILLRACE_CACHE that of downloads and builds.
MILLRACE_DEBIAN_SUITES names the suites of Debian that servers are taken from, in order; empty: none."""
MODULES = {"bench": "infra.bench.main", "demo": "infra.local.demo.main", "outside": "infra.local.outside"}


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code, or is replaced by it."""
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    command, rest = arguments[0], list(arguments[1:])
    if command in commands.QUICK:
        return commands.QUICK[command](rest)
    if command == "call":
        return call.call(rest)
    if command == "up":
        return commands.up(rest, everything)
    if command == "test":
        tools = everything()
        become(tools.python, ["-m", "pytest", *(rest or ["tests", "--durations=20"])], tools)
    if command == "check":
        become(python_tools(), ["-m", "infra.local.check", *rest])
    if command == "provision":
        print(everything().to_json())
        return 0
    if command in MODULES:
        tools = everything()
        become(tools.python, ["-m", MODULES[command], *rest], tools)
    print(f"run: unknown command {command!r}; ./run lists the commands.", file=sys.stderr)
    return 2


def everything() -> Tools:
    """All parts of the stack."""
    return Provision(Store(cache_folder()), ROOT).everything()


def python_tools() -> Path:
    """The Python that has all packages, with LND's stubs in the checkout."""
    return Provision(Store(cache_folder()), ROOT).python_tools()


def become(python: Path, arguments: Sequence[str], tools: Tools | None = None) -> NoReturn:
    """Replace this process by the environment's Python."""
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if tools is not None:
        environment["MILLRACE_TOOLS"] = tools.to_json()
    sys.stdout.flush()
    os.execve(python, [str(python), *arguments], environment)


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM take the same way out."""
    raise KeyboardInterrupt


def run() -> NoReturn:
    """Run `main` and report a failure in one sentence; ends at once, whatever threads still do."""
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        code = main(sys.argv[1:])
    except Failed as failure:
        print(f"run: {failure}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("run: interrupted; what is complete is kept, the same command goes on from there.", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    except OSError as error:
        print(
            f"run: {error.strerror} ({error.filename}): see that the disk has room and the folder can be written.",
            file=sys.stderr,
        )
        code = 1
    for store in Store.open_ones:
        store.children.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
